//! Errors a retry may fix. Whatever a user has to change is a condition instead.

use std::borrow::Cow;

/// Why a pass did not reach its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or did not answer.
    #[error("cannot {action} {object}: {}", message_of(.source))]
    Api {
        /// What was tried.
        action: &'static str,
        /// On which object.
        object: Cow<'static, str>,
        /// The answer.
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

/// The message of the API server verbatim, or the error in words.
pub fn message_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            text
        }
    }
}
