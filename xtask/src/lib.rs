//! What is generated, from what. Each generator returns whole files or the generated part of a page.

mod crds;

use std::path::{Path, PathBuf};

use anyhow::Result;

/// A generated file.
pub struct Generated {
    /// Path from the root of the repository.
    pub path: PathBuf,
    /// What the file must contain.
    pub content: String,
}

/// The generated files whose content on disk differs from what the sources say.
pub fn differing(root: &Path) -> Result<Vec<Generated>> {
    let mut files = crds::files()?;
    files
        .retain(|file| std::fs::read_to_string(root.join(&file.path)).ok().as_deref() != Some(&file.content));
    Ok(files)
}
