//! Static programs, for roots without a C library.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::components::{self, Binaries, workspace};

/// How much time goes into programs for images: cargo's profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// What is released: optimised across crates, minutes for each program.
    Release,
    /// For tests: the same programs, larger and slower, linked in seconds.
    Quick,
}

impl Profile {
    const fn name(self) -> &'static str {
        match self {
            Self::Release => "image",
            Self::Quick => "image-quick",
        }
    }

    /// The most bytes that the files of an image may be: 25 MiB (packaging §13). What is not optimised across crates is up
    /// to three tenths larger.
    pub const fn budget(self) -> u64 {
        match self {
            Self::Release => 25 * 1024 * 1024,
            Self::Quick => 32 * 1024 * 1024,
        }
    }
}

/// Builds programs of the workspace for images: static, stamped with the revision, released ones without paths of this machine.
/// Blocks while cargo works; progress is shown on standard error.
pub fn build_static(programs: &[&str], profile: Profile) -> Result<Binaries> {
    build_static_as(programs, profile, &revision()?)
}

/// The same, stamped with what the caller says that the sources are: they may change while cargo works.
pub(super) fn build_static_as(programs: &[&str], profile: Profile, revision: &str) -> Result<Binaries> {
    let target = target();
    let home = cargo_home()?;
    // With a target named, the flags do not reach build scripts and macros, which must stay dynamic.
    let mut flags = vec![
        "-Ctarget-feature=+crt-static".to_owned(),
        format!("--remap-path-prefix={}=/cargo", home.display()),
    ];
    // Flags are part of what cargo keeps: with the folder in them every clone would compile all dependencies anew.
    if profile == Profile::Release {
        flags.push(format!("--remap-path-prefix={}=/build", workspace().display()));
    }
    let quoted: Vec<String> = flags.iter().map(|flag| format!("{flag:?}")).collect();
    let arguments = [
        format!("--profile={}", profile.name()),
        format!("--target={target}"),
        format!("--config=target.{target}.rustflags=[{}]", quoted.join(",")),
    ];
    let wanted: BTreeSet<&str> = programs.iter().copied().collect();
    let built = components::cargo_build(&wanted, &arguments, &[("KAGENTI_REVISION", revision)])?;
    Ok(Binaries::from(built))
}

/// The target whose C library can be linked statically and still resolves names in an empty root.
pub(super) fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn cargo_home() -> Result<PathBuf> {
    let given = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let usual = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    given.or_else(usual).context("neither CARGO_HOME nor HOME is set")
}

/// The commit these sources are, with `-dirty` when files differ from it; `unknown` outside a clone.
pub fn revision() -> Result<String> {
    let git = |args: &[&str]| -> Result<Option<String>> {
        let output = match Command::new("git").args(args).current_dir(workspace()).output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            output => output.context("starting git")?,
        };
        Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned()))
    };
    let Some(commit) = git(&["rev-parse", "HEAD"])? else { return Ok("unknown".to_owned()) };
    match git(&["status", "--porcelain", "--untracked-files=no"])? {
        Some(changes) if changes.is_empty() => Ok(commit),
        Some(_) => Ok(format!("{commit}-dirty")),
        None => bail!("git knows the commit of {} and not its state", workspace().display()),
    }
}
