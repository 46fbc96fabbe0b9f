//! What is generated, from what. Each generator returns whole files or the generated parts of a page.

mod api_reference;
mod charts;
mod crds;
mod dashboards;
pub mod flags;
mod rights;
pub mod sections;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

/// A generated file.
pub struct Generated {
    /// Path from the root of the repository.
    pub path: PathBuf,
    /// What the file must contain.
    pub content: String,
}

impl Generated {
    /// A file of JSON for people, too: indented, with a newline at its end.
    fn json(path: impl Into<PathBuf>, value: &Value) -> Result<Self> {
        Ok(Self { path: path.into(), content: format!("{}\n", serde_json::to_string_pretty(value)?) })
    }
}

/// The generated files whose content on disk differs from what the sources say.
pub fn differing(root: &Path) -> Result<Vec<Generated>> {
    let mut files = crds::files()?;
    files.push(api_reference::file()?);
    files.extend(charts::files(root)?);
    files.extend(dashboards::files(root)?);
    files.extend(sections::pages(root)?);
    files
        .retain(|file| std::fs::read_to_string(root.join(&file.path)).ok().as_deref() != Some(&file.content));
    Ok(files)
}
