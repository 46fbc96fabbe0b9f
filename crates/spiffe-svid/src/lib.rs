//! Where an X.509-SVID comes from: the SPIFFE Workload API or PEM files (card §7, §16).
//!
//! A [`SvidSource`] is asked for the SVID at hand each time one is needed, so a rotated one is used from the
//! next handshake or signature on. Its task reads for ever: a socket that appears late, goes away or rotates
//! is a matter of seconds, never of a restart. An SVID that has expired is not handed out.

mod files;
mod source;
mod svid;
mod workload_api;

pub use files::SvidFiles;
pub use source::SvidSource;
pub use svid::{Svid, SvidError};
pub use workload_api::{EndpointError, WorkloadApi};
