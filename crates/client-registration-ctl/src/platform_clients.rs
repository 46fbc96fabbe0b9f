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

/// So many are remembered: their names are what tenants write.
const KEPT: usize = 1000;

type Cell = Arc<tokio::sync::Mutex<Option<Known>>>;

#[derive(Clone)]
struct Known {
    at: Instant,
    client: Option<Arc<Shared>>,
}

/// Somebody else holds it, to ask Keycloak or to hear of the answer.
fn is_in_use(cell: &Cell) -> bool {
    Arc::strong_count(cell) > 1
}

fn known(cell: &Cell) -> Option<Known> {
    cell.try_lock().ok()?.clone()
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
        let key = (server.clone(), id.to_owned());
        let mut cells = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = cells.get(&key) {
            return cell.clone();
        }
        cells.retain(|_, cell| is_in_use(cell) || known(cell).is_some_and(|known| self.is_good(&known)));
        if cells.len() >= KEPT {
            let idle = cells.iter().filter(|(_, cell)| !is_in_use(cell));
            let oldest = idle.min_by_key(|(_, cell)| known(cell).map(|known| known.at));
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                cells.remove(&key);
            }
        }
        cells.entry(key).or_default().clone()
    }

    fn is_good(&self, known: &Known) -> bool {
        let lasts = if known.client.is_some() { FOUND_FOR } else { self.missing_for };
        known.at.elapsed() < lasts
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
        if let Some(known) = known.as_ref().filter(|known| self.is_good(known)) {
            return Ok(known.client.clone());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    fn server() -> Server {
        settings(&[])
            .trust(None)
            .unwrap()
            .check("http://keycloak-service.keycloak.svc:8080", "kagenti")
            .unwrap()
    }

    fn length(clients: &PlatformClients) -> usize {
        clients.known.lock().unwrap().len()
    }

    async fn look(clients: &PlatformClients, id: &str) {
        let cell = clients.cell(&server(), id);
        *cell.lock().await = Some(Known { at: Instant::now(), client: None });
    }

    /// The ids are a tenant's text, who may write others as often as they like.
    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_kept_and_none_for_long() {
        let clients = PlatformClients::new(Duration::from_secs(3600));
        look(&clients, "first").await;
        for number in 0..KEPT + 10 {
            tokio::time::advance(Duration::from_millis(1)).await;
            look(&clients, &number.to_string()).await;
        }
        assert_eq!(length(&clients), KEPT);
        let known = |id: &str| clients.known.lock().unwrap().contains_key(&(server(), id.to_owned()));
        assert!(!known("first") && known(&(KEPT + 9).to_string()), "the oldest go");
        tokio::time::advance(FOUND_FOR).await;
        look(&clients, "later").await;
        assert_eq!(length(&clients), 1);
    }

    /// What somebody is asking Keycloak for right now is asked for once.
    #[tokio::test(start_paused = true)]
    async fn one_that_is_looked_for_is_not_dropped() {
        let clients = PlatformClients::new(Duration::from_secs(3600));
        let cell = clients.cell(&server(), "kagenti");
        let asking = cell.lock().await;
        for number in 0..KEPT + 10 {
            look(&clients, &number.to_string()).await;
        }
        drop(asking);
        assert!(Arc::ptr_eq(&cell, &clients.cell(&server(), "kagenti")));
    }
}
