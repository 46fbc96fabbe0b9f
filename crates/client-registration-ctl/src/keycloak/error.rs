//! What Keycloak's answers mean (client-registration §5.1).

use std::time::Duration;

use rest_client::{CallError, Response, quote};
use serde::Deserialize;

use crate::reason::Reason;

/// State of a realm that is not there.
pub(super) const GONE: &str = "does not exist";

/// Why a call to Keycloak did not do what it should.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KeycloakError {
    /// There are no administrator's credentials.
    #[error("{0}")]
    NoCredentials(String),
    /// The login was refused.
    #[error(
        "Keycloak refuses the administrator's credentials ({detail}): check the admin Secret; the next login is when it \
         changes, or after 1 to 10 min"
    )]
    Unauthorized {
        /// What Keycloak said.
        detail: String,
        /// When to try again.
        retry_in: Duration,
    },
    /// A right is missing.
    #[error(
        "Keycloak refuses to {operation} in realm {realm}: give the admin account the client role manage-clients of \
         realm-management (for an account in realm master: of {realm}-realm), and let its client have full scope"
    )]
    Forbidden {
        /// What was tried.
        operation: &'static str,
        /// Where.
        realm: String,
    },
    /// The realm does not exist, or is switched off.
    #[error("realm {realm} {state} in Keycloak: create or enable it, or correct KEYCLOAK_REALM")]
    RealmNotFound {
        /// The realm.
        realm: String,
        /// `does not exist` or `is disabled`.
        state: &'static str,
    },
    /// The certificate is not trusted.
    #[error("no trusted TLS connection to Keycloak: {0}; add the certificate's CA with --keycloak-ca-file")]
    Tls(String),
    /// No answer, or one that may be another later.
    #[error("cannot {operation}: {detail}")]
    Transient {
        /// What was tried.
        operation: &'static str,
        /// What came of it.
        detail: String,
    },
    /// An answer that will not change by itself.
    #[error("Keycloak refuses to {operation}: {detail}")]
    Rejected {
        /// What was tried.
        operation: &'static str,
        /// Status and text.
        detail: String,
    },
}

impl KeycloakError {
    /// Reason of the condition.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoCredentials(_) => Reason::WaitingForAdminCredentials,
            Self::Unauthorized { .. } => Reason::KeycloakUnauthorized,
            Self::Forbidden { .. } => Reason::KeycloakForbidden,
            Self::RealmNotFound { .. } => Reason::RealmNotFound,
            Self::Tls(_) => Reason::KeycloakTLSError,
            Self::Transient { .. } => Reason::KeycloakUnavailable,
            Self::Rejected { .. } => Reason::KeycloakError,
        }
    }

    /// When to try again; `None` = with growing pauses.
    pub fn retry_in(&self) -> Option<Duration> {
        match self {
            // A change of the admin Secret ends the wait sooner.
            Self::NoCredentials(_) | Self::Forbidden { .. } | Self::Tls(_) => Some(Duration::from_secs(300)),
            Self::Unauthorized { retry_in, .. } => Some(*retry_in),
            Self::RealmNotFound { .. } => Some(Duration::from_secs(60)),
            Self::Transient { .. } | Self::Rejected { .. } => None,
        }
    }

    /// Whether this realm does not exist: whatever was in it is gone, too.
    pub fn is_realm_gone(&self, realm: &str) -> bool {
        matches!(self, Self::RealmNotFound { realm: missing, state } if missing == realm && *state == GONE)
    }

    /// No answer at all.
    pub(crate) fn of_call(operation: &'static str, error: &CallError) -> Self {
        if error.is_tls() {
            return Self::Tls(error.to_string());
        }
        match error {
            CallError::Path | CallError::Request(_) | CallError::TooLarge(_) => {
                Self::Rejected { operation, detail: error.to_string() }
            }
            _ => Self::Transient { operation, detail: error.to_string() },
        }
    }

    /// A refusal of the admin API. 401 is the caller's, and so are a 404 and a 409 that it expects.
    pub(crate) fn of_answer(operation: &'static str, realm: &str, answer: &Response) -> Self {
        let detail = || format!("HTTP {}{}", answer.status(), said(answer));
        match answer.status() {
            403 => Self::Forbidden { operation, realm: realm.to_owned() },
            404 if is_realm_missing(answer) => Self::RealmNotFound { realm: realm.to_owned(), state: GONE },
            429 | 500.. => Self::Transient { operation, detail: detail() },
            300..400 => Self::Rejected {
                operation,
                detail: format!(
                    "HTTP {} (a redirect, which is not followed): correct the URL",
                    answer.status()
                ),
            },
            _ => Self::Rejected { operation, detail: detail() },
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    error: Option<String>,
    error_description: Option<String>,
    #[serde(rename = "errorMessage")]
    error_message: Option<String>,
}

/// Whether a 404 means the realm and not only the object.
pub fn is_realm_missing(answer: &Response) -> bool {
    answer.status() == 404
        && answer
            .json::<Body>()
            .and_then(|body| body.error)
            .is_some_and(|error| matches!(error.as_str(), "Realm not found." | "Realm does not exist"))
}

/// What an error body says, with a colon in front; empty when it says nothing.
pub fn said(answer: &Response) -> String {
    let body = answer.json::<Body>().unwrap_or_default();
    let text = match (body.error_message, body.error, body.error_description) {
        (Some(message), _, _) => message,
        (None, Some(error), Some(description)) => format!("{error} ({description})"),
        (None, Some(text), None) | (None, None, Some(text)) => text,
        (None, None, None) => return String::new(),
    };
    format!(": {}", quote::bounded(&text, quote::LIMIT))
}
