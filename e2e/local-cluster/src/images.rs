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

pub use archive::Written;
pub use build::{Profile, build_static, revision};
pub use image::{Entry, Image};
pub use summary::Summary;
