//! A scripted Keycloak that counts (client-registration §17): clients and scopes come into being, and each call takes the
//! time it is told to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::proxy::{Fault, Proxy, Seen};
use super::realm::PLATFORM_CLIENT;
use crate::json::Json as _;

/// The server; its realm is `kagenti`.
pub struct Counting {
    proxy: Proxy,
}

/// Clients by their id, as they were sent.
type Clients = Arc<Mutex<HashMap<String, Value>>>;

impl Counting {
    /// A server whose answers take `time`.
    pub async fn start(time: Duration) -> Result<Self> {
        let clients = Clients::default();
        let rule = move |seen: &Seen| answer(&clients, seen);
        let proxy = Proxy::scripted(rule).await?;
        proxy.slow(time);
        Ok(Self { proxy })
    }

    /// The base URL.
    pub fn url(&self) -> String {
        self.proxy.url()
    }

    /// A mark for [`Counting::since`].
    pub fn mark(&self) -> usize {
        self.proxy.mark()
    }

    /// What was asked since a mark.
    pub fn since(&self, mark: usize) -> Calls {
        let mut calls = Calls::default();
        for seen in self.proxy.since(mark) {
            if seen.is_token() {
                calls.tokens += 1;
            } else if let Some(workload) = workload(&seen) {
                calls.workloads.entry(workload).or_default().push(format!("{} {}", seen.method, seen.path));
            } else {
                calls.others.push(format!("{} {}", seen.method, seen.path));
            }
        }
        calls
    }
}

/// What was asked.
#[derive(Debug, Default)]
pub struct Calls {
    /// Requests for tokens.
    pub tokens: usize,
    /// Calls about each workload.
    pub workloads: HashMap<String, Vec<String>>,
    /// Everything else.
    pub others: Vec<String>,
}

fn answer(clients: &Clients, seen: &Seen) -> Option<Fault> {
    if seen.is_token() {
        return Some(Fault::json(200, &json!({"access_token": "a-token", "expires_in": 300})));
    }
    let path = seen.path.strip_prefix("/admin/realms/kagenti/")?;
    let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
    match (seen.method.as_str(), path.split('/').collect::<Vec<_>>().as_slice()) {
        ("GET", [query]) => {
            let id = query.strip_prefix("clients?clientId=")?.replace("%2F", "/");
            let platform = (id == PLATFORM_CLIENT).then(|| json!({"clientId": id}));
            let mut found = clients.get(&id).cloned().or(platform);
            if let Some(client) = &mut found {
                json_patch::merge(client, &json!({"id": uuid(&id)}));
            }
            Some(Fault::json(200, &json!(found.into_iter().collect::<Vec<_>>())))
        }
        ("POST", ["clients"]) => {
            let client = seen.json();
            let id = client.text("/clientId").to_owned();
            let location = uuid(&id);
            clients.insert(id, client);
            Some(created(&location))
        }
        ("POST", ["client-scopes"]) => Some(created(seen.json().text("/name"))),
        ("GET", ["clients", uuid, "client-secret"]) => {
            Some(Fault::json(200, &json!({"type": "secret", "value": format!("secret-of-{uuid}")})))
        }
        ("PUT", ["clients", _, "default-client-scopes", _]) => Some(empty(204, Vec::new())),
        _ => None,
    }
}

fn created(id: &str) -> Fault {
    empty(201, vec![("location", format!("http://keycloak/admin/realms/kagenti/x/{id}"))])
}

fn empty(status: u16, headers: Vec<(&'static str, String)>) -> Fault {
    Fault::Answer { status, content: "application/json", body: String::new(), headers }
}

/// A client's UUID tells its id. As in Keycloak it has no dots: the component does not believe such a `Location`.
fn uuid(id: &str) -> String {
    id.replace('/', "_")
}

/// The workload that a call is about: its client's id.
fn workload(seen: &Seen) -> Option<String> {
    let path = seen.path.strip_prefix("/admin/realms/kagenti/")?;
    let id = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["clients"] => seen.json().text("/clientId").to_owned(),
        ["client-scopes"] => {
            let body = seen.json();
            body.items("/protocolMappers").first()?.text("/config/included.custom.audience").to_owned()
        }
        ["clients", uuid, "client-secret"] => uuid.replace('_', "/"),
        // A scope's id is its name.
        ["clients", _, "default-client-scopes", scope] => {
            scope.strip_prefix("agent-")?.strip_suffix("-aud")?.replacen('-', "/", 1)
        }
        [query] => query.strip_prefix("clients?clientId=")?.replace("%2F", "/"),
        _ => return None,
    };
    id.contains('/').then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::Call;

    #[tokio::test]
    async fn calls_belong_to_workloads() {
        let keycloak = Counting::start(Duration::ZERO).await.expect("a server");
        let base = format!("{}/admin/realms/kagenti", keycloak.url());
        let find = || Call::get(format!("{base}/clients?clientId=scale%2Fagent-1")).ok();
        assert_eq!(find().await.expect("a list"), json!([]));
        let made =
            Call::post(format!("{base}/clients")).json(&json!({"clientId": "scale/agent-1"})).send().await;
        let made = made.expect("an answer");
        assert_eq!(made.status, 201);
        let location = made.headers["location"].to_str().expect("text").to_owned();
        assert!(location.ends_with("/scale_agent-1"), "{location}");
        assert_eq!(find().await.expect("a list")[0]["id"], "scale_agent-1");
        let attach = format!("{base}/clients/kagenti/default-client-scopes/agent-scale-agent-1-aud");
        Call::new(hyper::Method::PUT, attach).ok().await.expect("attached");
        Call::get(format!("{base}/clients?clientId=kagenti")).ok().await.expect("the platform's client");
        let calls = keycloak.since(0);
        assert_eq!((calls.tokens, calls.others.len()), (0, 1), "{calls:?}");
        let about: Vec<_> =
            calls.workloads.iter().map(|(workload, calls)| (workload.as_str(), calls.len())).collect();
        assert_eq!(about, [("scale/agent-1", 4)]);
    }
}
