//! Errors a retry may fix.

use std::time::Duration;

pub use controller_kit::controller::PassError;
use controller_kit::{
    apply::code_of,
    controller::{Failed, Retry},
};

/// Why a pass did not reach its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What every controller meets.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// A live read knows of something that the watch has not told yet.
    #[error("the watch of {0} is behind")]
    Behind(&'static str),
    /// Both names of a policy belong to somebody else.
    #[error(
        "NetworkPolicies {names} belong to somebody else: rename or delete one of the two, the workload is not isolated until then"
    )]
    NameTaken {
        /// Both names, with the namespace.
        names: String,
    },
}

impl Failed for Error {
    fn retry(&self) -> Retry {
        match self {
            // A right is missing, or the object is refused as it is: retrying soon is of no use.
            Self::Pass(PassError::Api { source, .. }) if matches!(code_of(source), 403 | 422) => REFUSED,
            Self::NameTaken { .. } => REFUSED,
            Self::Pass(error) => error.retry(),
            Self::Behind(_) => Retry::SOON,
        }
    }
}

const REFUSED: Retry = Retry::BackOff(Duration::from_secs(10));
