//! Errors a retry may fix.

use std::borrow::Cow;

pub use controller_kit::apply::message_of;

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

impl Error {
    /// Wraps an answer of the API server.
    pub fn api(
        action: &'static str,
        object: impl Into<Cow<'static, str>>,
    ) -> impl FnOnce(kube::Error) -> Self {
        let object = object.into();
        move |source| Self::Api { action, object, source }
    }

    /// A right is missing, or the object is refused as it is: retrying soon is of no use.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Api { source, .. } => matches!(controller_kit::apply::code_of(source), 403 | 422),
            Self::NameTaken { .. } => true,
            Self::NotLeader | Self::NotSynced(_) | Self::Behind(_) => false,
        }
    }
}
