//! Container images without a registry or a daemon.
//!
//! An image of the suite is one static program in an empty root (packaging §13): [`build`] compiles the programs,
//! [`Image`] says what is in the root, [`archive`] writes it as a tarball that `ctr images import`, `docker load` and
//! `podman load` read. The same content gives the same bytes. `deploy/Dockerfile` makes the same images for a release.

mod archive;
pub mod args;
mod build;
mod image;
pub mod stand_ins;
pub mod suite;
mod summary;

use std::path::PathBuf;

use anyhow::Result;

pub use archive::Written;
pub use build::{Profile, build_static, revision};
pub use image::{Entry, Image};
pub use summary::{Summary, file_in_image};

/// Tarballs of everything that an installation and the quick start run: the suite, and stand-ins for what only a registry has.
/// Blocks for minutes the first time.
pub fn for_a_node() -> Result<Vec<PathBuf>> {
    let packed = suite::pack_or_take(&suite::PROGRAMS)?;
    let mut files: Vec<PathBuf> = packed.into_iter().map(|image| image.file).collect();
    files.extend(stand_ins::pack(&suite::default_dir())?);
    Ok(files)
}
