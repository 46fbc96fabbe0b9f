//! A small Keycloak: clients and scopes in memory, faults by script, every request on record.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{Response, header},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// One request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: String,
    pub(crate) authorization: String,
}

impl Seen {
    pub(crate) fn is_write(&self) -> bool {
        self.method != "GET" && !self.path.contains("/protocol/openid-connect/")
    }

    pub(crate) fn is_login(&self) -> bool {
        self.path.ends_with("/protocol/openid-connect/token")
    }
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) clients: BTreeMap<String, Value>,
    pub(crate) scopes: BTreeMap<String, Value>,
    pub(crate) realm_defaults: Vec<String>,
    pub(crate) seen: Vec<Seen>,
    /// Answers given instead, to requests whose line contains the text.
    pub(crate) faults: VecDeque<(&'static str, u16, &'static str)>,
    /// As the faults, for ever.
    pub(crate) standing: Vec<(&'static str, u16, &'static str)>,
    pub(crate) expires_in: u64,
    /// Tokens with a lower number are refused.
    pub(crate) oldest_token: u32,
    token: u32,
    next: u32,
}

#[derive(Clone)]
pub(crate) struct FakeKeycloak {
    world: Arc<Mutex<World>>,
    pub(crate) url: String,
}

type Answer = (u16, Option<String>, Value);

impl FakeKeycloak {
    /// One with realm `kagenti` and its client `kagenti`.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let world = World { expires_in: 300, ..World::default() };
        let keycloak = Self { world: Arc::new(Mutex::new(world)), url };
        keycloak.add_client(json!({"clientId": "kagenti"}));
        let app = Router::new().fallback(answer).with_state(keycloak.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        keycloak
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(crate) fn add_client(&self, client: Value) -> String {
        self.world().add_client(client)
    }

    pub(crate) fn client(&self, id: &str) -> Option<Value> {
        self.world().clients.values().find(|client| client["clientId"] == id).cloned()
    }

    pub(crate) fn scope(&self, name: &str) -> Option<Value> {
        self.world().scopes.values().find(|scope| scope["name"] == name).cloned()
    }

    /// What arrived since the last look, as `METHOD path`.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.world().seen)
    }
}

impl World {
    fn id(&mut self, prefix: &str) -> String {
        self.next += 1;
        format!("{prefix}-{}", self.next)
    }

    fn add_client(&mut self, mut client: Value) -> String {
        let id = self.id("client");
        client["id"] = json!(id);
        client["secret"] = json!(format!("secret-of-{id}"));
        for list in ["defaultClientScopes", "optionalClientScopes"] {
            if client[list].is_null() {
                client[list] = json!([]);
            }
        }
        self.clients.insert(id.clone(), client);
        id
    }

    fn respond(&mut self, request: &Seen, query: &str) -> Answer {
        let line = format!("{} {}", request.method, request.path);
        if let Some(at) = self.faults.iter().position(|(text, ..)| line.contains(text)) {
            let (_, status, body) = self.faults.remove(at).unwrap();
            return (status, None, serde_json::from_str(body).unwrap_or_default());
        }
        if let Some((_, status, body)) = self.standing.iter().find(|(text, ..)| line.contains(text)) {
            return (*status, None, serde_json::from_str(body).unwrap_or_default());
        }
        if request.is_login() {
            self.token += 1;
            let refresh = format!("refresh-{}", self.token);
            return (
                200,
                None,
                json!({"access_token": format!("token-{}", self.token), "expires_in": self.expires_in,
                "refresh_token": refresh}),
            );
        }
        if request.path.ends_with("/logout") {
            return (204, None, Value::Null);
        }
        let number = request.authorization.strip_prefix("Bearer token-").and_then(|n| n.parse::<u32>().ok());
        if number.is_none_or(|number| number < self.oldest_token) {
            return (401, None, json!({"error": "HTTP 401 Unauthorized"}));
        }
        let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let found =
            |known: bool| if known { (204, None, Value::Null) } else { missing("Could not find client") };
        match (request.method.as_str(), &parts[..]) {
            ("GET", ["admin", "serverinfo"]) => {
                (200, None, json!({"features": [{"name": "SPIFFE", "enabled": false}]}))
            }
            (_, ["admin", "realms", realm, ..]) if *realm != "kagenti" => missing("Realm not found."),
            ("GET", [_, _, _, "clients"]) => {
                let id = query.strip_prefix("clientId=").unwrap().replace("%2F", "/").replace("%3A", ":");
                let found: Vec<&Value> =
                    self.clients.values().filter(|client| client["clientId"] == id).collect();
                (200, None, json!(found))
            }
            ("POST", [_, _, _, "clients"]) => {
                if self.clients.values().any(|client| client["clientId"] == body["clientId"]) {
                    return (409, None, json!({"errorMessage": "Client already exists"}));
                }
                let mut client = body;
                client["defaultClientScopes"] = json!(self.realm_defaults);
                let id = self.add_client(client);
                (201, Some(format!("http://elsewhere/admin/realms/kagenti/clients/{id}")), Value::Null)
            }
            ("GET", [_, _, _, "clients", id]) => match self.clients.get(*id) {
                Some(client) => (200, None, client.clone()),
                None => missing("Could not find client"),
            },
            ("PUT", [_, _, _, "clients", id]) => match self.clients.get_mut(*id) {
                Some(client) => {
                    for (key, value) in body.as_object().unwrap() {
                        if key == "attributes" {
                            for (name, text) in value.as_object().unwrap() {
                                client["attributes"][name] = text.clone();
                            }
                        } else {
                            client[key] = value.clone();
                        }
                    }
                    (204, None, Value::Null)
                }
                None => missing("Could not find client"),
            },
            ("DELETE", [_, _, _, "clients", id]) => found(self.clients.remove(*id).is_some()),
            ("GET", [_, _, _, "clients", id, "client-secret"]) => {
                (200, None, json!({"type": "secret", "value": self.clients[*id]["secret"]}))
            }
            ("POST", [_, _, _, "clients", id, "client-secret"]) => {
                let fresh = self.id("fresh-secret");
                self.clients.get_mut(*id).unwrap()["secret"] = json!(fresh);
                (200, None, json!({"type": "secret", "value": fresh}))
            }
            (method, [_, _, _, "clients", id, list, scope]) => {
                let name = self.scopes[*scope]["name"].clone();
                let field =
                    if list.starts_with("default") { "defaultClientScopes" } else { "optionalClientScopes" };
                let Some(client) = self.clients.get_mut(*id) else { return missing("Could not find client") };
                let names = client[field].as_array_mut().unwrap();
                names.retain(|known| *known != name);
                if method == "PUT" {
                    names.push(name);
                }
                (204, None, Value::Null)
            }
            ("GET", [_, _, _, "client-scopes"]) => {
                (200, None, json!(self.scopes.values().cloned().collect::<Vec<_>>()))
            }
            ("POST", [_, _, _, "client-scopes"]) => {
                if self.scopes.values().any(|scope| scope["name"] == body["name"]) {
                    return (409, None, json!({"errorMessage": "Client Scope already exists"}));
                }
                let id = self.id("scope");
                let mut scope = body;
                scope["id"] = json!(id);
                scope["protocolMappers"][0]["id"] = json!(self.id("mapper"));
                self.scopes.insert(id.clone(), scope);
                (201, Some(format!("http://elsewhere/admin/realms/kagenti/client-scopes/{id}")), Value::Null)
            }
            ("GET", [_, _, _, "client-scopes", id]) => match self.scopes.get(*id) {
                Some(scope) => (200, None, scope.clone()),
                None => missing("Could not find client scope"),
            },
            ("DELETE", [_, _, _, "client-scopes", id]) => found(self.scopes.remove(*id).is_some()),
            (method, [_, _, _, "client-scopes", id, "protocol-mappers", "models", rest @ ..]) => {
                let fresh = self.id("mapper");
                let mappers = self.scopes.get_mut(*id).unwrap()["protocolMappers"].as_array_mut().unwrap();
                if let [mapper] = rest {
                    mappers.retain(|known| known["id"] != *mapper);
                }
                if method != "DELETE" {
                    let mut mapper = body;
                    if mapper["id"].is_null() {
                        mapper["id"] = json!(fresh);
                    }
                    mappers.push(mapper);
                }
                (204, None, Value::Null)
            }
            ("GET", [_, _, _, "default-default-client-scopes"]) => {
                let listed: Vec<&Value> = self
                    .scopes
                    .values()
                    .filter(|s| self.realm_defaults.iter().any(|name| s["name"] == *name))
                    .collect();
                (200, None, json!(listed))
            }
            (method, [_, _, _, "default-default-client-scopes", id]) => {
                let name = self.scopes[*id]["name"].as_str().unwrap().to_owned();
                self.realm_defaults.retain(|known| *known != name);
                if method == "PUT" {
                    self.realm_defaults.push(name);
                }
                (204, None, Value::Null)
            }
            _ => missing("no such endpoint"),
        }
    }
}

fn missing(error: &str) -> Answer {
    (404, None, json!({ "error": error }))
}

async fn answer(State(keycloak): State<FakeKeycloak>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let text =
        |name| parts.headers.get(name).map_or("", |value: &header::HeaderValue| value.to_str().unwrap());
    let seen = Seen {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        body: String::from_utf8(body.to_vec()).unwrap(),
        authorization: text(header::AUTHORIZATION).to_owned(),
    };
    let mut world = keycloak.world();
    let (status, location, value) = world.respond(&seen, parts.uri.query().unwrap_or_default());
    world.seen.push(seen);
    let mut response = Response::builder().status(status);
    if let Some(location) = location {
        response = response.header(header::LOCATION, location);
    }
    let body = if value.is_null() { String::new() } else { value.to_string() };
    response.body(Body::from(body)).unwrap()
}
