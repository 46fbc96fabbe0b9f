//! The images of the suite.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use notices::Notices;

use super::build::{build_static_as, target};
use super::image::{Entry, Image, USER};
use super::{Profile, Summary, Written, revision};
use crate::components::workspace;
use crate::terminal::Terminal;

/// Every program that has an image: the components with a chart, and what runs beside agents.
pub const PROGRAMS: [&str; 7] = [
    "authbridge-webhook",
    "card-ctl",
    "client-registration-ctl",
    "mlflow-ctl",
    "netpol-ctl",
    "runtime-ctl",
    "agentcard-signer",
];

/// Where the charts look for images unless told otherwise (packaging §3.1).
pub const REPOSITORY: &str = "ghcr.io/kagenti/kagenti-operator";

/// Certificates of public authorities, from Debian's ca-certificates here and in `deploy/Dockerfile`.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Where the roots are in an image, which is also where the programs look for them.
const ROOTS_IN_IMAGE: &str = "etc/ssl/certs/ca-certificates.crt";

/// An image that was written.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Its program.
    pub program: String,
    /// Its full reference.
    pub reference: String,
    /// The commit it says it was built from.
    pub revision: String,
    /// The tarball.
    pub file: PathBuf,
    /// Bytes of its files.
    pub size: u64,
    /// Digest and layer.
    pub written: Written,
}

/// Where images go unless told otherwise: beside the programs that cargo builds.
pub fn default_dir() -> PathBuf {
    let given = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    given.unwrap_or_else(|| workspace().join("target")).join("images")
}

/// Builds the programs and writes one tarball for each into a directory. Blocks for minutes the first time, with progress on
/// standard error. An error when an image is over [`Profile::budget`].
pub fn pack(programs: &[&str], profile: Profile, dir: &Path) -> Result<Vec<Packed>> {
    let shared = Shared::read()?;
    let built = build_static_as(programs, profile, &shared.revision)?;
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let task = Terminal::stderr().task("packing images");
    let mut packed = Vec::with_capacity(programs.len());
    for program in programs {
        let image = shared.image(program, built.path(program)?)?;
        let size = image.size();
        let budget = profile.budget();
        ensure!(
            size <= budget,
            "the image of {program} has {size} bytes, {budget} are allowed: look for a new dependency with \
             `cargo bloat`, or for debug information that was not stripped"
        );
        let file = dir.join(format!("{program}.tar"));
        let written = image.write(&file)?;
        packed.push(Packed {
            program: (*program).to_owned(),
            reference: image.reference,
            revision: shared.revision.clone(),
            file,
            size,
            written,
        });
    }
    task.done();
    Ok(packed)
}

/// Images for tests: compiled with [`Profile::Quick`], or with the variable `KAGENTI_IMAGES` set the tarballs of that directory
/// as they are.
pub fn pack_or_take(programs: &[&str]) -> Result<Vec<Packed>> {
    let Some(dir) = std::env::var_os("KAGENTI_IMAGES").map(PathBuf::from) else {
        return pack(programs, Profile::Quick, &default_dir());
    };
    let take = |program: &&str| {
        let file = dir.join(format!("{program}.tar"));
        let summary = Summary::read(&file)?;
        let label = |name: &str| summary.labels.get(&format!("org.opencontainers.image.{name}")).cloned();
        Ok(Packed {
            program: (*program).to_owned(),
            revision: label("revision").context("an image without label revision")?,
            reference: summary.reference,
            size: summary.written.layer,
            written: summary.written,
            file,
        })
    };
    programs.iter().map(take).collect()
}

/// What all images share.
struct Shared {
    revision: String,
    roots: Vec<u8>,
    licence: Vec<u8>,
    notices: Notices,
}

impl Shared {
    fn read() -> Result<Self> {
        let roots =
            std::fs::read(ROOTS).with_context(|| format!("reading {ROOTS}; install ca-certificates"))?;
        let licence = std::fs::read(workspace().join("LICENSE")).context("reading LICENSE")?;
        let notices = Notices::read(&workspace(), &target())?;
        Ok(Self { revision: revision()?, roots, licence, notices })
    }

    /// The image of a program (packaging §13).
    fn image(&self, program: &str, file: &Path) -> Result<Image> {
        let version = env!("CARGO_PKG_VERSION");
        let mut image = Image::of_program(&format!("{REPOSITORY}/{program}:{version}"), program, file)?;
        image.entries.extend([
            Entry::text("etc/passwd", format!("nonroot:x:{USER}:{USER}:nonroot:/:/sbin/nologin\n")),
            Entry::text("etc/group", format!("nonroot:x:{USER}:\n")),
            Entry::text(ROOTS_IN_IMAGE, self.roots.clone()),
            Entry::text("licenses/LICENSE", self.licence.clone()),
            Entry::text(notices::PATH_IN_IMAGE, self.notices.text(program)?),
        ]);
        let labels = [
            ("title", program),
            ("source", env!("CARGO_PKG_REPOSITORY")),
            ("licenses", env!("CARGO_PKG_LICENSE")),
            ("version", version),
            ("revision", &self.revision),
        ];
        image.labels =
            labels.map(|(name, value)| (format!("org.opencontainers.image.{name}"), value.to_owned())).into();
        Ok(image)
    }
}

#[cfg(test)]
mod tests {
    use super::super::file_in_image;
    use super::*;

    /// The Dockerfile makes the same images, so it has the same programs, user and files.
    #[test]
    fn the_dockerfile_has_a_target_for_every_program() {
        let text = std::fs::read_to_string(workspace().join("deploy/Dockerfile")).expect("the Dockerfile");
        let stages: Vec<(&str, Vec<&str>)> = stages(&text);
        let targets: Vec<&str> = stages
            .iter()
            .filter(|(head, _)| head.starts_with("base AS "))
            .map(|(head, _)| &head[8..])
            .collect();
        let mut wanted = PROGRAMS.to_vec();
        wanted.sort_unstable();
        let mut sorted = targets.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, wanted);
        for (head, lines) in stages.iter().filter(|(head, _)| head.starts_with("base AS ")) {
            let program = &head[8..];
            assert!(
                lines.contains(&format!("COPY --from=build /out/{program} /{program}").as_str()),
                "{program}"
            );
            assert!(lines.contains(&format!("ENTRYPOINT [\"/{program}\"]").as_str()), "{program}");
            assert!(
                lines.contains(&format!("LABEL org.opencontainers.image.title=\"{program}\"").as_str()),
                "{program}"
            );
            let path = notices::PATH_IN_IMAGE;
            assert!(
                lines.contains(&format!("COPY --from=build /out/notices/{program}.txt /{path}").as_str()),
                "{program}"
            );
        }
        let programs = format!("ENV PROGRAMS=\"{}\"", PROGRAMS.join(" "));
        assert!(text.lines().any(|line| line == programs), "{programs}");
        let (_, base) = stages.iter().find(|(head, _)| *head == "scratch AS base").expect("a stage base");
        assert!(base.contains(&format!("USER {USER}:{USER}").as_str()));
        for path in [ROOTS_IN_IMAGE, "etc/passwd", "etc/group", "licenses/LICENSE"] {
            assert!(base.iter().any(|line| line.ends_with(&format!(" /{path}"))), "{path}");
        }
    }

    #[test]
    fn every_image_has_its_licences() {
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("program");
        // The head of a program without a loader.
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.resize(64, 0);
        std::fs::write(&program, elf).expect("written");
        let shared = Shared::read().expect("what images share");
        for name in PROGRAMS {
            let image = shared.image(name, &program).expect("an image");
            let file = dir.path().join("image.tar");
            image.write(&file).expect("written");
            let read = |path: &str| {
                let content = file_in_image(&file, path).expect("a tarball").expect(path);
                String::from_utf8(content).expect("a text")
            };
            assert!(read("licenses/LICENSE").contains("Apache License"), "{name}");
            let notices = read("licenses/THIRD-PARTY-NOTICES.txt");
            assert_eq!(notices.lines().next(), Some(format!("Third-party notices of {name}").as_str()));
        }
        assert!(file_in_image(&dir.path().join("image.tar"), "bin/sh").expect("a tarball").is_none());
    }

    /// Head and lines of every stage.
    fn stages(text: &str) -> Vec<(&str, Vec<&str>)> {
        let mut stages = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            match (line.strip_prefix("FROM "), stages.last_mut()) {
                (Some(head), _) => stages.push((head, Vec::new())),
                (None, Some((_, lines))) => lines.push(line),
                (None, None) => {}
            }
        }
        stages
    }

    #[test]
    fn every_component_with_a_chart_has_an_image() {
        let charts = std::fs::read_dir(workspace().join("charts")).expect("charts");
        for chart in charts {
            let path = chart.expect("a chart").path();
            if path.join("files/rbac.yaml").is_file() {
                let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
                assert!(PROGRAMS.contains(&name), "no image for {name}");
            }
        }
    }
}
