//! Why a pass did not reach its end.

use std::time::Duration;

use controller_kit::{
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
        }
    }
}
