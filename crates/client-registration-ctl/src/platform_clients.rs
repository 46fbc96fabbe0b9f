//! The clients that users log in with (client-registration §7.3): their tokens carry every agent's audience. What is
//! known of them is shared by all registrations, so that each costs one call (§17).

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    keycloak::{Keycloak, KeycloakError, client::Client},
    trust::Server,
};

/// How long a client that was found is believed.
const FOUND_FOR: Duration = Duration::from_secs(600);
/// How long a client that was missing is not looked for, at most: the next full check finds it (§7.3).
const MISSING_FOR: Duration = Duration::from_secs(60);

type Cell = Arc<tokio::sync::Mutex<Option<Known>>>;

#[derive(Clone)]
struct Known {
    at: Instant,
    client: Option<Arc<Shared>>,
}

/// What is kept of a platform client.
struct Shared {
    uuid: String,
    optional: HashSet<String>,
    default: Mutex<HashSet<String>>,
}

impl Shared {
    fn of(client: Client) -> Self {
        Self {
            uuid: client.id,
            optional: client.optional_client_scopes.into_iter().collect(),
            default: Mutex::new(client.default_client_scopes.into_iter().collect()),
        }
    }

    fn default(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.default.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The platform clients of all realms.
pub struct PlatformClients {
    known: Mutex<HashMap<(Server, String), Cell>>,
    missing_for: Duration,
}

impl PlatformClients {
    /// Nothing is known; registrations are compared with Keycloak once in `resync`.
    pub fn new(resync: Duration) -> Self {
        Self { known: Mutex::default(), missing_for: MISSING_FOR.min(resync / 2) }
    }

    fn cell(&self, server: &Server, id: &str) -> Cell {
        let mut cells = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        cells.entry((server.clone(), id.to_owned())).or_default().clone()
    }

    async fn get(
        &self,
        keycloak: &Keycloak,
        server: &Server,
        id: &str,
    ) -> Result<Option<Arc<Shared>>, KeycloakError> {
        let cell = self.cell(server, id);
        // Whoever holds the lock asks for all.
        let mut known = cell.lock().await;
        if let Some(known) = &*known {
            let lasts = if known.client.is_some() { FOUND_FOR } else { self.missing_for };
            if known.at.elapsed() < lasts {
                return Ok(known.client.clone());
            }
        }
        let client = keycloak.find_client(server, id).await?.map(|client| Arc::new(Shared::of(client)));
        *known = Some(Known { at: Instant::now(), client: client.clone() });
        Ok(client)
    }

    async fn forget(&self, server: &Server, id: &str) {
        *self.cell(server, id).lock().await = None;
    }

    /// Makes a scope a default scope of a platform client; false = there is no such client.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn attach(
        &self,
        keycloak: &Keycloak,
        server: &Server,
        id: &str,
        scope: (&str, &str),
    ) -> Result<bool, KeycloakError> {
        let (scope_id, name) = scope;
        let Some(client) = self.get(keycloak, server, id).await? else { return Ok(false) };
        if client.default().contains(name) {
            return Ok(true);
        }
        if client.optional.contains(name) {
            keycloak.detach_optional(server, &client.uuid, scope_id).await?;
            self.forget(server, id).await;
        }
        if keycloak.attach_to_client(server, &client.uuid, scope_id).await? {
            client.default().insert(name.to_owned());
            return Ok(true);
        }
        // It was deleted meanwhile, or deleted and made anew.
        self.forget(server, id).await;
        Ok(false)
    }

    /// Takes a scope off a platform client.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn detach(
        &self,
        keycloak: &Keycloak,
        server: &Server,
        id: &str,
        scope_id: &str,
    ) -> Result<(), KeycloakError> {
        if let Some(client) = self.get(keycloak, server, id).await? {
            keycloak.detach_default(server, &client.uuid, scope_id).await?;
            self.forget(server, id).await;
        }
        Ok(())
    }
}
