//! Errors a retry may fix. Whatever a user has to change is a condition instead.

use std::borrow::Cow;

pub use controller_kit::apply::{code_of, message_of};

/// Why a pass did not reach its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or did not answer.
    #[error("cannot {action} {object}")]
    Api {
        /// What was tried.
        action: &'static str,
        /// On which object.
        object: Cow<'static, str>,
        /// The answer.
        #[source]
        source: kube::Error,
    },
    /// This replica may not write any more.
    #[error("no longer the leader, nothing was written")]
    NotLeader,
    /// A watch this pass needs has not delivered yet.
    #[error("waiting for the watch of {0}")]
    NotSynced(&'static str),
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

impl Error {
    /// Wraps an answer of the API server.
    pub fn api(
        action: &'static str,
        object: impl Into<Cow<'static, str>>,
    ) -> impl FnOnce(kube::Error) -> Self {
        let object = object.into();
        move |source| Self::Api { action, object, source }
    }
}
