//! Errors a retry may fix. Whatever a user has to change is a condition instead.

use std::borrow::Cow;

use controller_kit::surroundings::NotReady;

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

impl From<NotReady> for Error {
    fn from(NotReady(input): NotReady) -> Self {
        Self::NotSynced(input.describe())
    }
}
