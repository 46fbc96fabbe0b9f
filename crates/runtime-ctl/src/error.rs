//! Errors a retry may fix. Whatever a user has to change is a condition instead.

use std::time::Duration;

use controller_kit::controller::{Failed, Retry};
pub use controller_kit::{apply::code_of, controller::PassError, message::message_of};

/// Why a pass did not reach its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What every controller meets.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The workload could not be cleaned; the condition says why.
    #[error("clean-up of {object} failed: {message}")]
    Cleanup {
        /// The workload.
        object: String,
        /// Message of the API server.
        message: String,
    },
    /// The configuration of the namespace could not be read; the condition says why.
    #[error("{0}")]
    Config(String),
    /// The workload could not be patched; the condition says why.
    #[error("cannot configure {object}: {message}")]
    Apply {
        /// The workload.
        object: String,
        /// Message of the API server.
        message: String,
        /// Retrying soon is of no use: a right is missing or the change is refused (runtime §6 step 10).
        refused: bool,
    },
}

impl Failed for Error {
    fn retry(&self) -> Retry {
        match self {
            Self::Pass(error) => error.retry(),
            // Runtime §8.1.
            Self::Cleanup { .. } => Retry::BackOff(Duration::from_secs(1)),
            // Runtime §6 step 10.
            Self::Apply { refused: true, .. } => Retry::BackOff(Duration::from_secs(30)),
            Self::Apply { refused: false, .. } | Self::Config(_) => Retry::SOON,
        }
    }
}
