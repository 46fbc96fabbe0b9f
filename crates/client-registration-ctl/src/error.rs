//! Why a pass did not reach its end.

use std::time::Duration;

use controller_kit::{
    apply::{code_of, is_stale},
    controller::{Failed, PassError, Retry},
    surroundings::NotReady,
};

use crate::keycloak::KeycloakError;

/// First pause after a transient failure of Keycloak (§5.1).
const KEYCLOAK: Duration = Duration::from_secs(5);

/// A retry may fix these; what a user has to change is a condition.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What every controller has.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// Keycloak.
    #[error(transparent)]
    Keycloak(#[from] KeycloakError),
    /// The audience scope could not be made or attached; the Secret was written nevertheless.
    #[error("the audience scope is not ready: {0}")]
    Audience(String),
    /// Another pass has the [turn](crate::sharing::Turns) at the client.
    #[error("another pass is at work on client {0}")]
    Busy(String),
}

impl Error {
    /// What the API server refuses for good: it will not be accepted in a second either.
    pub fn is_refusal(&self) -> bool {
        let Self::Pass(PassError::Api { source, .. }) = self else { return false };
        matches!(code_of(source), 400..=499) && !is_stale(source) && code_of(source) != 429
    }
}

impl From<NotReady> for Error {
    fn from(NotReady(input): NotReady) -> Self {
        Self::Pass(PassError::NotSynced(input.describe()))
    }
}

impl Failed for Error {
    fn retry(&self) -> Retry {
        match self {
            Self::Pass(error) => error.retry(),
            Self::Keycloak(_) | Self::Audience(_) => Retry::BackOff(KEYCLOAK),
            Self::Busy(_) => Retry::SOON,
        }
    }
}
