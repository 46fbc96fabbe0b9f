//! What is in an image.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// The user of every image, as a number: Kubernetes cannot tell from a name that it is not root.
pub(super) const USER: u32 = 65532;

/// A file of an image. Its directories come by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path without the leading slash.
    pub path: String,
    /// Permissions, such as 0o755.
    pub mode: u32,
    /// The content.
    pub content: Vec<u8>,
}

impl Entry {
    /// A file that everybody may read.
    pub fn text(path: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { path: path.to_owned(), mode: 0o644, content: content.into() }
    }

    /// A static program, read from this machine. An error when it needs a dynamic loader: an empty root has none.
    pub fn program(path: &str, file: &Path) -> Result<Self> {
        let content = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        ensure!(
            is_static(&content) == Some(true),
            "{} is no static program, so it cannot run in an empty root",
            file.display()
        );
        Ok(Self { path: path.to_owned(), mode: 0o755, content })
    }
}

/// An image with one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The full reference, such as `ghcr.io/kagenti/kagenti-operator/card-ctl:0.1.0`.
    pub reference: String,
    /// What is run.
    pub entrypoint: Vec<String>,
    /// Whose rights it has: `<uid>:<gid>`.
    pub user: String,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970 of everything in it.
    pub created: i64,
    /// Its files.
    pub entries: Vec<Entry>,
}

impl Image {
    /// An image of one program as its own entrypoint, run by user 65532.
    pub fn of_program(reference: &str, name: &str, program: &Path) -> Result<Self> {
        Ok(Self {
            reference: reference.to_owned(),
            entrypoint: vec![format!("/{name}")],
            user: format!("{USER}:{USER}"),
            labels: BTreeMap::new(),
            created: 0,
            entries: vec![Entry::program(name, program)?],
        })
    }

    /// Bytes of all files: what a node unpacks.
    pub fn size(&self) -> u64 {
        self.entries.iter().map(|entry| entry.content.len() as u64).sum()
    }
}

/// Whether an ELF program of 64 bits runs without a dynamic loader; none for anything else.
fn is_static(elf: &[u8]) -> Option<bool> {
    /// Program header that names the loader.
    const INTERPRETER: u32 = 3;
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let offset = usize::try_from(u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
    for index in 0..count {
        let at = offset.checked_add(index * size)?;
        let kind = u32::from_le_bytes(elf.get(at..at.checked_add(4)?)?.try_into().ok()?);
        if kind == INTERPRETER {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_loader_is_refused() {
        // Whatever runs the tests is linked dynamically.
        let own = std::env::current_exe().expect("the own program");
        let error = Entry::program("x", &own).expect_err("dynamic");
        assert!(format!("{error}").contains("no static program"), "{error}");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for content in [&b"#!/bin/sh\n"[..], b"\x7fELF\x02\x01", b""] {
            std::fs::write(file.path(), content).expect("written");
            assert!(Entry::program("x", file.path()).is_err());
        }
    }
}
