//! The calls of client-registration §5.3. Each needs a [`Server`], which only the trust check makes.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Method, header::LOCATION};
use rest_client::{Endpoint, Request, Response, RestClient, Secret};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    AdminSecret, KeycloakError,
    client::Client,
    error::is_realm_missing,
    objects::{ClientSecret, ScopeRef, ServerInfo},
    scope::{Scope, Step},
    token::Tokens,
};
use crate::{settings::Settings, trust::Server};

/// Largest list that is read, in bytes.
const LIST_LIMIT: usize = 32 * 1024 * 1024;
/// How long a list of all scopes is good for (§17).
const SCOPES_FOR: Duration = Duration::from_secs(30);
/// How long the server's features are believed (§6.1).
const FEATURES_FOR: Duration = Duration::from_secs(600);

/// What is being done: a metric label, and words for people.
#[derive(Clone, Copy)]
struct Operation(&'static str, &'static str);

const FIND_CLIENT: Operation = Operation("find_client", "find the client");
const READ_CLIENT: Operation = Operation("read_client", "read the client");
const CREATE_CLIENT: Operation = Operation("create_client", "create the client");
const UPDATE_CLIENT: Operation = Operation("update_client", "update the client");
const DELETE_CLIENT: Operation = Operation("delete_client", "delete the client");
const READ_SECRET: Operation = Operation("read_secret", "read the client's secret");
const NEW_SECRET: Operation = Operation("new_secret", "make a new client secret");
const LIST_SCOPES: Operation = Operation("list_scopes", "list client scopes");
const READ_SCOPE: Operation = Operation("read_scope", "read the audience scope");
const CREATE_SCOPE: Operation = Operation("create_scope", "create the audience scope");
const DELETE_SCOPE: Operation = Operation("delete_scope", "delete the audience scope");
const REPAIR_SCOPE: Operation = Operation("repair_scope", "repair the audience scope");
const ATTACH_SCOPE: Operation = Operation("attach_scope", "attach the audience scope");
const DETACH_SCOPE: Operation = Operation("detach_scope", "detach the audience scope");
const REALM_SCOPES: Operation = Operation("realm_scopes", "read the realm's default scopes");
const SERVER_INFO: Operation = Operation("server_info", "read the server's features");

/// What came of a create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// It exists now; the id when Keycloak named it.
    Made(Option<String>),
    /// It existed before.
    Exists,
}

/// Values that are asked for once and shared for a while.
struct Shared<K, V>(Mutex<HashMap<K, Arc<Cell<V>>>>);

/// A value and when it was read; whoever holds the lock reads it for all.
type Cell<V> = tokio::sync::Mutex<Option<(Instant, V)>>;

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, V> Shared<K, V> {
    fn cell(&self, key: &K) -> Arc<Cell<V>> {
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cells.entry(key.clone()).or_default().clone()
    }
}

/// The admin API of every trusted Keycloak.
pub struct Keycloak {
    rest: RestClient,
    tokens: Tokens,
    admin: Arc<AdminSecret>,
    settings: Settings,
    scopes: Shared<Server, Arc<HashMap<String, Scope>>>,
    features: Shared<Server, Arc<ServerInfo>>,
}

impl Keycloak {
    /// Nothing is sent before the first call.
    pub fn new(rest: RestClient, tokens: Tokens, admin: Arc<AdminSecret>, settings: Settings) -> Self {
        Self { rest, tokens, admin, settings, scopes: Shared::default(), features: Shared::default() }
    }

    /// The administrator's Secret.
    pub fn admin(&self) -> &AdminSecret {
        &self.admin
    }

    /// Sends a request with a token; a refused token is replaced once.
    async fn call(
        &self,
        server: &Server,
        operation: Operation,
        request: &Request,
    ) -> Result<Response, KeycloakError> {
        let credentials = self.admin.current()?;
        let realm = self.settings.admin_realm(server.realm());
        let mut repeated = false;
        loop {
            let token = self.tokens.get(server.base(), realm, &credentials).await?;
            let answer = self
                .rest
                .send(&request.clone().bearer(token.access()))
                .await
                .map_err(|error| KeycloakError::of_call(operation.1, &error))?;
            if answer.status() != 401 {
                return Ok(answer);
            }
            self.tokens.drop_token(server.base(), realm, &credentials, &token).await;
            if repeated {
                return Err(KeycloakError::Unauthorized {
                    detail: "HTTP 401 for a fresh token".to_owned(),
                    retry_in: Duration::from_secs(60),
                });
            }
            repeated = true;
        }
    }

    fn endpoint<'a>(
        server: &'a Server,
        operation: Operation,
        path: impl IntoIterator<Item = &'a str>,
    ) -> Endpoint {
        Endpoint::new(operation.0).segments(["admin", "realms", server.realm()]).segments(path)
    }

    fn refused(server: &Server, operation: Operation, answer: &Response) -> KeycloakError {
        KeycloakError::of_answer(operation.1, server.realm(), answer)
    }

    /// A call whose answer is an object; 404 = `None`.
    async fn read<T: DeserializeOwned>(
        &self,
        server: &Server,
        operation: Operation,
        request: &Request,
    ) -> Result<Option<T>, KeycloakError> {
        let answer = self.call(server, operation, request).await?;
        match answer.status() {
            200 => answer.json().map(Some).ok_or_else(|| KeycloakError::Rejected {
                operation: operation.1,
                detail: "the answer is not what Keycloak sends".to_owned(),
            }),
            404 if !is_realm_missing(&answer) => Ok(None),
            _ => Err(Self::refused(server, operation, &answer)),
        }
    }

    /// A call without an answer; false = the object does not exist.
    async fn act(
        &self,
        server: &Server,
        operation: Operation,
        request: &Request,
    ) -> Result<bool, KeycloakError> {
        let answer = self.call(server, operation, request).await?;
        match answer.status() {
            200..300 => Ok(true),
            404 if !is_realm_missing(&answer) => Ok(false),
            _ => Err(Self::refused(server, operation, &answer)),
        }
    }

    async fn create(
        &self,
        server: &Server,
        operation: Operation,
        collection: &str,
        body: &Value,
    ) -> Result<Created, KeycloakError> {
        let request =
            Request::post(server.base(), Self::endpoint(server, operation, [collection])).json(body);
        let answer = self.call(server, operation, &request).await?;
        match answer.status() {
            200..300 => Ok(Created::Made(answer.header(LOCATION).and_then(last_segment))),
            409 => Ok(Created::Exists),
            _ => Err(Self::refused(server, operation, &answer)),
        }
    }

    /// The client with this id, compared exactly.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn find_client(&self, server: &Server, id: &str) -> Result<Option<Client>, KeycloakError> {
        let endpoint = Self::endpoint(server, FIND_CLIENT, ["clients"]).query("clientId", id);
        let request = Request::get(server.base(), endpoint).body_limit(LIST_LIMIT);
        let found: Option<Vec<Client>> = self.read(server, FIND_CLIENT, &request).await?;
        Ok(found.into_iter().flatten().find(|client| client.client_id == id && !client.id.is_empty()))
    }

    /// The client with this UUID.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn read_client(&self, server: &Server, uuid: &str) -> Result<Option<Client>, KeycloakError> {
        let endpoint = Self::endpoint(server, READ_CLIENT, ["clients", uuid]);
        self.read(server, READ_CLIENT, &Request::get(server.base(), endpoint).body_limit(LIST_LIMIT)).await
    }

    /// Creates a client.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn create_client(&self, server: &Server, body: &Value) -> Result<Created, KeycloakError> {
        self.create(server, CREATE_CLIENT, "clients", body).await
    }

    /// Updates a client; false = it is gone.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn update_client(
        &self,
        server: &Server,
        uuid: &str,
        body: &Value,
    ) -> Result<bool, KeycloakError> {
        let endpoint = Self::endpoint(server, UPDATE_CLIENT, ["clients", uuid]);
        self.act(server, UPDATE_CLIENT, &Request::put(server.base(), endpoint).json(body)).await
    }

    /// Deletes a client; one that is gone is fine.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn delete_client(&self, server: &Server, uuid: &str) -> Result<(), KeycloakError> {
        let endpoint = Self::endpoint(server, DELETE_CLIENT, ["clients", uuid]);
        self.act(server, DELETE_CLIENT, &Request::delete(server.base(), endpoint)).await.map(drop)
    }

    /// A client's secret; `None` for a client without one.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn secret(&self, server: &Server, uuid: &str) -> Result<Option<Secret>, KeycloakError> {
        let endpoint = Self::endpoint(server, READ_SECRET, ["clients", uuid, "client-secret"]);
        let request = Request::get(server.base(), endpoint);
        let answer: Option<ClientSecret> = self.read(server, READ_SECRET, &request).await?;
        Ok(answer.and_then(|answer| answer.value).filter(|secret| !secret.is_empty()))
    }

    /// Makes a new secret; the old one is refused at once.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn new_secret(&self, server: &Server, uuid: &str) -> Result<Option<Secret>, KeycloakError> {
        let endpoint = Self::endpoint(server, NEW_SECRET, ["clients", uuid, "client-secret"]);
        let request = Request::post(server.base(), endpoint);
        let answer: Option<ClientSecret> = self.read(server, NEW_SECRET, &request).await?;
        Ok(answer.and_then(|answer| answer.value).filter(|secret| !secret.is_empty()))
    }

    /// A scope by name, from a list that is at most 30 s old and shared by all who ask (§17).
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn find_scope(&self, server: &Server, name: &str) -> Result<Option<Scope>, KeycloakError> {
        let cell = self.scopes.cell(server);
        let mut cell = cell.lock().await;
        if let Some((read, scopes)) = &*cell
            && read.elapsed() < SCOPES_FOR
        {
            return Ok(scopes.get(name).cloned());
        }
        let endpoint = Self::endpoint(server, LIST_SCOPES, ["client-scopes"]);
        let request = Request::get(server.base(), endpoint).body_limit(LIST_LIMIT);
        let list: Vec<Scope> = self.read(server, LIST_SCOPES, &request).await?.unwrap_or_default();
        let scopes: HashMap<String, Scope> =
            list.into_iter().map(|scope| (scope.name.clone(), scope)).collect();
        let found = scopes.get(name).cloned();
        *cell = Some((Instant::now(), Arc::new(scopes)));
        Ok(found)
    }

    /// A scope with its mappers.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn read_scope(&self, server: &Server, id: &str) -> Result<Option<Scope>, KeycloakError> {
        let endpoint = Self::endpoint(server, READ_SCOPE, ["client-scopes", id]);
        self.read(server, READ_SCOPE, &Request::get(server.base(), endpoint)).await
    }

    /// Creates a scope with its mapper.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn create_scope(&self, server: &Server, body: &Value) -> Result<Created, KeycloakError> {
        self.create(server, CREATE_SCOPE, "client-scopes", body).await
    }

    /// Makes one step of a repair; false = the mappers are not what they were, look again.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn repair_scope(&self, server: &Server, id: &str, step: &Step) -> Result<bool, KeycloakError> {
        let path = |mapper: Option<&str>| {
            let models = ["client-scopes", id, "protocol-mappers", "models"];
            Self::endpoint(server, REPAIR_SCOPE, models.into_iter().chain(mapper))
        };
        let request = match step {
            Step::Create(body) => Request::post(server.base(), path(None)).json(body),
            Step::Update(mapper, body) => Request::put(server.base(), path(Some(mapper))).json(body),
            Step::Delete(mapper) => Request::delete(server.base(), path(Some(mapper))),
        };
        let answer = self.call(server, REPAIR_SCOPE, &request).await?;
        match (answer.status(), step) {
            (200..300, _) => Ok(true),
            (404, Step::Delete(_)) if !is_realm_missing(&answer) => Ok(true),
            (409, Step::Create(_)) => Ok(false),
            (404, _) if !is_realm_missing(&answer) => Ok(false),
            _ => Err(Self::refused(server, REPAIR_SCOPE, &answer)),
        }
    }

    /// Makes a scope a default scope of a client; false = one of the two is gone.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn attach_to_client(
        &self,
        server: &Server,
        client: &str,
        scope: &str,
    ) -> Result<bool, KeycloakError> {
        let path = ["clients", client, "default-client-scopes", scope];
        self.link(server, Method::PUT, ATTACH_SCOPE, &path).await
    }

    /// Takes a scope off a client's optional scopes. Only for a client that has it there: Keycloak removes a default
    /// link as well.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn detach_optional(
        &self,
        server: &Server,
        client: &str,
        scope: &str,
    ) -> Result<bool, KeycloakError> {
        let path = ["clients", client, "optional-client-scopes", scope];
        self.link(server, Method::DELETE, DETACH_SCOPE, &path).await
    }

    /// Takes a scope off a client's default scopes.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn detach_default(
        &self,
        server: &Server,
        client: &str,
        scope: &str,
    ) -> Result<bool, KeycloakError> {
        let path = ["clients", client, "default-client-scopes", scope];
        self.link(server, Method::DELETE, DETACH_SCOPE, &path).await
    }

    /// Puts a scope on the realm's default list.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn attach_to_realm(&self, server: &Server, scope: &str) -> Result<bool, KeycloakError> {
        self.link(server, Method::PUT, ATTACH_SCOPE, &["default-default-client-scopes", scope]).await
    }

    /// Takes a scope off the realm's default list.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn detach_from_realm(&self, server: &Server, scope: &str) -> Result<bool, KeycloakError> {
        self.link(server, Method::DELETE, DETACH_SCOPE, &["default-default-client-scopes", scope]).await
    }

    /// Changes a link; 409 means that it is as it should be.
    async fn link(
        &self,
        server: &Server,
        method: Method,
        operation: Operation,
        path: &[&str],
    ) -> Result<bool, KeycloakError> {
        let endpoint = Self::endpoint(server, operation, path.iter().copied());
        let answer = self.call(server, operation, &Request::new(method, server.base(), endpoint)).await?;
        match answer.status() {
            200..300 | 409 => Ok(true),
            404 if !is_realm_missing(&answer) => Ok(false),
            _ => Err(Self::refused(server, operation, &answer)),
        }
    }

    /// The realm's default list.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn realm_defaults(&self, server: &Server) -> Result<Vec<ScopeRef>, KeycloakError> {
        let endpoint = Self::endpoint(server, REALM_SCOPES, ["default-default-client-scopes"]);
        let request = Request::get(server.base(), endpoint).body_limit(LIST_LIMIT);
        Ok(self.read(server, REALM_SCOPES, &request).await?.unwrap_or_default())
    }

    /// Deletes a scope; false = it is in use (older servers refuse then).
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn delete_scope(&self, server: &Server, id: &str) -> Result<bool, KeycloakError> {
        let endpoint = Self::endpoint(server, DELETE_SCOPE, ["client-scopes", id]);
        let answer = self.call(server, DELETE_SCOPE, &Request::delete(server.base(), endpoint)).await?;
        match answer.status() {
            200..300 => Ok(true),
            404 if !is_realm_missing(&answer) => Ok(true),
            400 => Ok(false),
            _ => Err(Self::refused(server, DELETE_SCOPE, &answer)),
        }
    }

    /// The server's features, at most ten minutes old.
    ///
    /// # Errors
    /// What Keycloak says.
    pub async fn features(&self, server: &Server) -> Result<Arc<ServerInfo>, KeycloakError> {
        let cell = self.features.cell(server);
        let mut cell = cell.lock().await;
        if let Some((read, info)) = &*cell
            && read.elapsed() < FEATURES_FOR
        {
            return Ok(info.clone());
        }
        let endpoint = Endpoint::new(SERVER_INFO.0).segments(["admin", "serverinfo"]);
        let request = Request::get(server.base(), endpoint).body_limit(LIST_LIMIT);
        let info: Arc<ServerInfo> =
            Arc::new(self.read(server, SERVER_INFO, &request).await?.unwrap_or_default());
        *cell = Some((Instant::now(), info.clone()));
        Ok(info)
    }
}

/// The id at the end of a `Location`. The URL itself is never called: its host is Keycloak's own idea of its name.
fn last_segment(location: &str) -> Option<String> {
    let id = location.rsplit('/').next()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (!id.is_empty() && id.bytes().all(plain)).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("http://evil/admin/realms/r/clients/6f-1", Some("6f-1"))]
    #[case("http://kc/", None)]
    #[case("", None)]
    #[case("http://kc/clients/..", None)]
    #[case("http://kc/clients/a?x=1", None)]
    fn ids_of_locations(#[case] location: &str, #[case] id: Option<&str>) {
        assert_eq!(last_segment(location).as_deref(), id);
    }
}
