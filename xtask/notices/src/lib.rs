//! What `/licenses/THIRD-PARTY-NOTICES.txt` of an image says (packaging §13): the licence text of every crate that is
//! linked into a program, of Rust's standard library and of the C library, each text once.
//!
//! A crate of its own: the builder stage of `deploy/Dockerfile` compiles it for the build machine, and `xtask` would bring
//! all programs of the suite with it. Not `cargo-about`: that is one more program to compile per machine, it leaves out what
//! build scripts compile (OpenSSL), the standard library and the C library, and guesses texts that crates do not ship.

mod choice;
mod document;
mod libraries;
mod linked;
mod part;
mod texts;

use std::path::Path;

use anyhow::{Context as _, Result};

pub use choice::ORDER;
use linked::Linked;
use part::Part;

/// Where the text is in an image, without the leading slash.
pub const PATH_IN_IMAGE: &str = "licenses/THIRD-PARTY-NOTICES.txt";

/// The workspace as it is built for one target; makes the texts of any of its programs.
pub struct Notices {
    linked: Linked,
    libraries: Vec<Part>,
}

impl Notices {
    /// Asks cargo what the workspace in a directory links for a target, and reads the notices of the target's own libraries.
    /// Takes about a second. An error when cargo fails, or the toolchain came without its notices.
    pub fn read(workspace: &Path, target: &str) -> Result<Self> {
        let mut libraries = libraries::standard_library(workspace, target)?;
        libraries.push(libraries::c_library(target)?);
        Ok(Self { linked: Linked::read(workspace, target)?, libraries })
    }

    /// The text for a program. The same sources and toolchain give the same bytes. An error names a crate whose licence
    /// is not in [`ORDER`] or whose licence text is nowhere to be found.
    pub fn text(&self, program: &str) -> Result<String> {
        let mut entries = Vec::new();
        for name in self.linked.crates(program)? {
            let part = self.linked.part(&name)?;
            let sibling = |licence: &str| self.linked.sibling_text(&name, licence);
            entries.push((part.title.clone(), part.selected(&sibling)?, part.source));
        }
        for part in &self.libraries {
            entries.push((part.title.clone(), part.selected(&|_| Ok(None))?, part.source.clone()));
        }
        Ok(document::render(program, entries))
    }

    /// Names and versions of the crates that are linked into a program, the suite's own left out: `tokio 1.47.0`.
    pub fn crates(&self, program: &str) -> Result<Vec<String>> {
        self.linked.crates(program)
    }
}

/// Output of a program that must succeed, started in a directory.
fn output(program: &str, variable: &str, arguments: &[&str], directory: &Path) -> Result<String> {
    let named = std::env::var_os(variable).unwrap_or_else(|| program.into());
    let shown = format!("{program} {}", arguments.join(" "));
    let output = std::process::Command::new(named)
        .args(arguments)
        .current_dir(directory)
        .output()
        .with_context(|| format!("starting `{shown}`"))?;
    anyhow::ensure!(
        output.status.success(),
        "`{shown}` ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout).with_context(|| format!("reading the output of `{shown}`"))
}
