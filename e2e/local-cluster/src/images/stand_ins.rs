//! What answers on a real node for images that cannot be had without a registry: small programs of our own, from
//! `e2e/pod-programs`, under the references that the quick start and the webhook name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{Entry, Image, Profile, build_static};

/// The agent of the quick start.
const AGENT: &str = "ghcr.io/kagenti/agent-examples/weather_service:v0.0.1-alpha.3";
/// The images that the webhook injects: reference, and what the stand-in is told first.
const INJECTED: [(&str, &[&str]); 3] = [
    ("ghcr.io/kagenti/kagenti-extensions/authbridge:latest", &[]),
    ("ghcr.io/kagenti/kagenti-extensions/authbridge-envoy:latest", &[]),
    ("ghcr.io/kagenti/kagenti-extensions/proxy-init:latest", &["init"]),
];

/// The image whose container runs a script of the webhook: a shell, what the script calls, and a program of ours for the one
/// that talks to Keycloak.
const REGISTRATION: &str = "ghcr.io/kagenti/kagenti-extensions/client-registration:latest";
/// Programs of this machine that the script calls, by the names it calls them.
const TOOLS: [(&str, &str); 5] = [
    ("/bin/sh", "bin/sh"),
    ("/bin/sleep", "bin/sleep"),
    ("/bin/rm", "bin/rm"),
    ("/bin/mv", "bin/mv"),
    ("/bin/chmod", "bin/chmod"),
];

/// Builds the programs and writes a tarball for each image into a directory. Blocks while cargo works.
pub fn pack(dir: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let programs = build_static(&["agent", "register", "stand-in"], Profile::Quick)?;
    let mut files = Vec::new();
    let mut write = |name: &str, image: &Image| {
        let file = dir.join(format!("{name}.tar"));
        image.write(&file).map(|_| files.push(file))
    };
    write("agent", &Image::of_program(AGENT, "agent", programs.path("agent")?)?)?;
    for (reference, first) in INJECTED {
        let mut image = Image::of_program(reference, "stand-in", programs.path("stand-in")?)?;
        image.entrypoint.extend(first.iter().map(|word| (*word).to_owned()));
        let name = reference.rsplit('/').next().and_then(|name| name.split(':').next());
        write(&format!("stand-in-{}", name.unwrap_or(reference)), &image)?;
    }
    let mut registration = Image::of_program(REGISTRATION, "bin/python", programs.path("register")?)?;
    registration.entries.extend(tools()?);
    write("registration", &registration)?;
    Ok(files)
}

/// The tools with every library they need, which `ldd` names.
fn tools() -> Result<Vec<Entry>> {
    let mut files = BTreeMap::new();
    for (program, name) in TOOLS {
        files.insert(name.to_owned(), PathBuf::from(program));
        let output = Command::new("ldd").arg(program).output().context("starting ldd")?;
        ensure!(output.status.success(), "`ldd {program}` ended with {}", output.status);
        for word in String::from_utf8_lossy(&output.stdout).split_whitespace() {
            if let Some(name) = word.strip_prefix('/') {
                files.insert(name.to_owned(), PathBuf::from(word));
            }
        }
    }
    let entry = |(path, file): (String, PathBuf)| {
        let content = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        Ok(Entry { path, mode: 0o755, content })
    };
    files.into_iter().map(entry).collect()
}
