//! The administrator's access token: one login for all, renewed before it ends (client-registration §5.2).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rest_client::{BaseUrl, Endpoint, Request, Response, RestClient, Secret};
use tokio::time::Instant;

use super::{
    AdminCredentials, KeycloakError,
    error::{GONE, is_realm_missing, said},
    objects::TokenAnswer,
    session::{Session, Sessions},
};
use crate::{metrics::Logins, settings::AdminAuth};

/// Keycloak's client for administrators with a password.
const ADMIN_CLI: &str = "admin-cli";
/// Lifetime of a token that does not say.
const DEFAULT_LIFETIME: u64 = 60;
/// First and longest pause after a refused login: more would lock the account.
const REFUSED: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));

/// A token in use. Its session is closed when the last holder drops it.
#[derive(Debug)]
pub struct Token {
    access: Secret,
    renew_at: Instant,
    _session: Option<Session>,
}

impl Token {
    /// The token.
    pub fn access(&self) -> &Secret {
        &self.access
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    base: BaseUrl,
    auth: AdminAuth,
    realm: String,
    principal: String,
    version: String,
}

impl Key {
    fn new(base: &BaseUrl, realm: &str, credentials: &AdminCredentials) -> Self {
        Self {
            base: base.clone(),
            auth: credentials.auth,
            realm: realm.to_owned(),
            principal: credentials.principal.clone(),
            version: credentials.version.clone(),
        }
    }

    /// The same login with another version of the credentials.
    fn replaces(&self, other: &Self) -> bool {
        self != other && self.base == other.base && self.auth == other.auth && self.realm == other.realm
    }
}

#[derive(Default)]
struct Slot {
    token: Option<Arc<Token>>,
    refused: Option<Refused>,
}

#[derive(Clone)]
struct Refused {
    detail: String,
    pause: Duration,
    until: Instant,
}

/// The tokens of all Keycloaks.
pub struct Tokens {
    rest: RestClient,
    sessions: Sessions,
    logins: Logins,
    slots: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<Slot>>>>,
}

impl Tokens {
    /// No logins yet.
    pub fn new(rest: RestClient, sessions: Sessions, logins: Logins) -> Self {
        Self { rest, sessions, logins, slots: Mutex::default() }
    }

    fn slot(&self, key: Key) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&key) {
            return slot.clone();
        }
        slots.retain(|old, _| !key.replaces(old));
        slots.entry(key).or_default().clone()
    }

    /// A token for the admin API of `base`; `realm` is the one the credentials belong to. Callers that come at once
    /// share one login, and so do those who are refused.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn get(
        &self,
        base: &BaseUrl,
        realm: &str,
        credentials: &AdminCredentials,
    ) -> Result<Arc<Token>, KeycloakError> {
        let slot = self.slot(Key::new(base, realm, credentials));
        let mut slot = slot.lock().await;
        let now = Instant::now();
        if let Some(token) = slot.token.as_ref().filter(|token| now < token.renew_at) {
            return Ok(token.clone());
        }
        if let Some(refused) = slot.refused.as_ref().filter(|refused| now < refused.until) {
            return Err(KeycloakError::Unauthorized {
                detail: refused.detail.clone(),
                retry_in: refused.until - now,
            });
        }
        let login = self.login(base, realm, credentials).await;
        self.logins.count(&login);
        match login {
            Ok(token) => {
                let token = Arc::new(token);
                *slot = Slot { token: Some(token.clone()), refused: None };
                Ok(token)
            }
            Err(KeycloakError::Unauthorized { detail, .. }) => {
                let pause = slot.refused.take().map_or(REFUSED.0, |last| (last.pause * 2).min(REFUSED.1));
                slot.token = None;
                slot.refused = Some(Refused { detail: detail.clone(), pause, until: Instant::now() + pause });
                Err(KeycloakError::Unauthorized { detail, retry_in: pause })
            }
            Err(error) => Err(error),
        }
    }

    /// Keycloak refused a token: it is not used again. A newer one stays.
    pub async fn drop_token(
        &self,
        base: &BaseUrl,
        realm: &str,
        credentials: &AdminCredentials,
        refused: &Arc<Token>,
    ) {
        let slot = self.slot(Key::new(base, realm, credentials));
        let mut slot = slot.lock().await;
        if slot.token.as_ref().is_some_and(|token| Arc::ptr_eq(token, refused)) {
            slot.token = None;
        }
    }

    async fn login(
        &self,
        base: &BaseUrl,
        realm: &str,
        credentials: &AdminCredentials,
    ) -> Result<Token, KeycloakError> {
        const OPERATION: &str = "log in";
        let endpoint =
            Endpoint::new("token").segments(["realms", realm, "protocol", "openid-connect", "token"]);
        let request = Request::post(base, endpoint);
        let request = match credentials.auth {
            AdminAuth::Password => request.form([
                ("grant_type", "password"),
                ("client_id", ADMIN_CLI),
                ("username", &credentials.principal),
                ("password", credentials.secret.expose()),
            ]),
            AdminAuth::ClientCredentials | AdminAuth::SpiffeJwt => request
                .basic(&credentials.principal, &credentials.secret)
                .form([("grant_type", "client_credentials")]),
        };
        let answer =
            self.rest.send(&request).await.map_err(|error| KeycloakError::of_call(OPERATION, &error))?;
        if !answer.is_success() {
            return Err(refusal(OPERATION, realm, &answer));
        }
        let token =
            answer.json::<TokenAnswer>().filter(|token| !token.access_token.is_empty()).ok_or_else(|| {
                KeycloakError::Rejected {
                    operation: OPERATION,
                    detail: "the answer holds no access token: is KEYCLOAK_URL a Keycloak?".to_owned(),
                }
            })?;
        let session = token
            .refresh_token
            .filter(|refresh| credentials.auth == AdminAuth::Password && !refresh.is_empty())
            .map(|refresh| self.sessions.open(base, realm, ADMIN_CLI, refresh));
        Ok(Token {
            access: token.access_token,
            renew_at: Instant::now() + usable(token.expires_in),
            _session: session,
        })
    }
}

/// How long a token is used that lives `expires_in` seconds.
fn usable(expires_in: u64) -> Duration {
    let lifetime = Duration::from_secs(if expires_in == 0 { DEFAULT_LIFETIME } else { expires_in });
    lifetime.saturating_sub((lifetime / 4).min(Duration::from_secs(30)))
}

/// A refusal of the token endpoint.
fn refusal(operation: &'static str, realm: &str, answer: &Response) -> KeycloakError {
    match answer.status() {
        400 | 401 => KeycloakError::Unauthorized {
            detail: format!("HTTP {}{}", answer.status(), said(answer)),
            retry_in: REFUSED.0,
        },
        403 if said(answer).contains("Realm not enabled") => {
            KeycloakError::RealmNotFound { realm: realm.to_owned(), state: "is disabled" }
        }
        404 if is_realm_missing(answer) => {
            KeycloakError::RealmNotFound { realm: realm.to_owned(), state: GONE }
        }
        _ => KeycloakError::of_answer(operation, realm, answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// §5.2: refresh when less than min(30 s, lifetime/4) is left.
    #[rstest]
    #[case(0, 45)]
    #[case(60, 45)]
    #[case(300, 270)]
    #[case(4, 3)]
    #[case(36_000, 35_970)]
    fn a_token_is_renewed_in_time(#[case] expires_in: u64, #[case] used: u64) {
        assert_eq!(usable(expires_in), Duration::from_secs(used));
    }
}
