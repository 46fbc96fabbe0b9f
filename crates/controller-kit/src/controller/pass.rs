//! How a pass ends when it does not reach its end.

use std::{borrow::Cow, time::Duration};

use crate::message::message_of;

/// Reasons every controller has. A retry may fix them; whatever a user has to change is a condition instead.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
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

impl PassError {
    /// Wraps an answer of the API server.
    pub fn api(
        action: &'static str,
        object: impl Into<Cow<'static, str>>,
    ) -> impl FnOnce(kube::Error) -> Self {
        let object = object.into();
        move |source| Self::Api { action, object, source }
    }
}

/// When a failed pass is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Soon: another replica leads now, and nothing is wrong with the object.
    Follower,
    /// After waits that double, beginning with this one. Failures that begin with another wait are counted apart.
    BackOff(Duration),
}

impl Retry {
    /// What most failures get (runtime §20).
    pub const SOON: Self = Self::BackOff(Duration::from_millis(200));
}

/// An error of a pass.
pub trait Failed: std::error::Error {
    /// When to try again.
    fn retry(&self) -> Retry;
}

impl Failed for PassError {
    fn retry(&self) -> Retry {
        match self {
            Self::NotLeader => Retry::Follower,
            Self::Api { .. } | Self::NotSynced(_) => Retry::SOON,
        }
    }
}
