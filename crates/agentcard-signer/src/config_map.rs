//! The signed card as ConfigMap `<agent>-card-signed` (card §16.2).

use agent_trust::sign::Signed;
use api_types::card::{signed, signed_config_map};
use api_types::names::label;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::kube_api::{ApiError, KubeApi};

/// The key that card-ctl and the previous operator read.
const KEY: &str = "agent-card.json";
const MANAGER: &str = "agentcard-signer";
/// Lets card-ctl watch instead of poll.
const LABEL_VALUE: &str = "true";
/// Replicas write the same ConfigMap, each with its own signature.
const ATTEMPTS: usize = 5;

/// What became of the ConfigMap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It did not exist.
    Created,
    /// It held something else.
    Updated,
    /// It holds this card, signed with this certificate.
    Unchanged,
}

/// Why the ConfigMap could not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The API server could not be asked.
    #[error("ConfigMap {namespace}/{name}: {source}")]
    Api {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Why.
        source: ApiError,
    },
    /// The API server refused.
    #[error("ConfigMap {namespace}/{name}: {verb} was answered with status {status}{hint}")]
    Refused {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What was tried.
        verb: &'static str,
        /// The status.
        status: u16,
        /// What to do about it.
        hint: &'static str,
    },
    /// Somebody else wrote it each time.
    #[error("ConfigMap {namespace}/{name}: changed by somebody else {ATTEMPTS} times in a row")]
    Contended {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// Puts the signed card into the ConfigMap of `agent`. Keys and labels of others stay; nothing is written when it
/// already holds the same document with valid signatures of the same certificate, as another replica leaves it.
///
/// Works with the rights `create`, `get` and either `patch` or `update` on ConfigMaps.
pub async fn publish(
    api: &KubeApi,
    namespace: &str,
    agent: &str,
    signed: &Signed,
) -> Result<Published, PublishError> {
    let name = signed_config_map(agent);
    Target { api, namespace, name: &name, signed }.publish().await
}

struct Target<'a> {
    api: &'a KubeApi,
    namespace: &'a str,
    name: &'a str,
    signed: &'a Signed,
}

impl Target<'_> {
    async fn publish(&self) -> Result<Published, PublishError> {
        for _ in 0..ATTEMPTS {
            let (status, found) = self.send(Method::GET, &self.path(), None).await?;
            let done = match status {
                StatusCode::OK if self.holds(&found) => Some(Published::Unchanged),
                StatusCode::OK => self.update(found).await?,
                StatusCode::NOT_FOUND => self.create().await?,
                status => return Err(self.refused("get", status)),
            };
            if let Some(done) = done {
                return Ok(done);
            }
        }
        let (namespace, name) = self.names();
        Err(PublishError::Contended { namespace, name })
    }

    /// `None`: somebody was faster, look again.
    async fn create(&self) -> Result<Option<Published>, PublishError> {
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": {label::MANAGED_BY: MANAGER, signed::LABEL: LABEL_VALUE},
            },
            "data": {KEY: self.document()},
        });
        let path = format!("{}?fieldManager={MANAGER}", self.collection());
        let (status, _) = self.send(Method::POST, &path, Some(("application/json", &object))).await?;
        match status {
            StatusCode::CREATED | StatusCode::OK => Ok(Some(Published::Created)),
            StatusCode::CONFLICT => Ok(None),
            status => Err(self.refused("create", status)),
        }
    }

    /// `None`: it changed in the meantime, look again.
    async fn update(&self, mut found: Value) -> Result<Option<Published>, PublishError> {
        let mut labels = json!({signed::LABEL: LABEL_VALUE});
        if text(&found, "/metadata/labels", label::MANAGED_BY).is_none() {
            merge(&mut labels, &json!({label::MANAGED_BY: MANAGER}));
        }
        let version = found.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
        let change = json!({
            "metadata": {"resourceVersion": version, "labels": labels},
            "data": {KEY: self.document()},
        });
        let path = format!("{}?fieldManager={MANAGER}", self.path());
        let body = Some(("application/merge-patch+json", &change));
        let (status, _) = self.send(Method::PATCH, &path, body).await?;
        let status = if status == StatusCode::FORBIDDEN {
            // Rights made for the previous signer have `update` and no `patch`.
            merge(&mut found, &change);
            self.send(Method::PUT, &path, Some(("application/json", &found))).await?.0
        } else {
            status
        };
        match status {
            StatusCode::OK => Ok(Some(Published::Updated)),
            StatusCode::CONFLICT | StatusCode::NOT_FOUND => Ok(None),
            status => Err(self.refused("patch", status)),
        }
    }

    /// True when there is nothing to write.
    fn holds(&self, found: &Value) -> bool {
        text(found, "/metadata/labels", signed::LABEL) == Some(LABEL_VALUE)
            && text(found, "/data", KEY).is_some_and(|there| self.signed.is_held_by(there.as_bytes()))
    }

    fn document(&self) -> String {
        String::from_utf8_lossy(&self.signed.document).into_owned()
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, &Value)>,
    ) -> Result<(StatusCode, Value), PublishError> {
        self.api.request(method, path, body).await.map_err(|source| {
            let (namespace, name) = self.names();
            PublishError::Api { namespace, name, source }
        })
    }

    fn refused(&self, verb: &'static str, status: StatusCode) -> PublishError {
        let (namespace, name) = self.names();
        let hint = match status {
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
                "; give the Pod's ServiceAccount create, get and patch on configmaps"
            }
            StatusCode::NOT_FOUND => "; does the namespace exist?",
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                "; a ConfigMap holds at most 1 MiB"
            }
            _ => "",
        };
        PublishError::Refused { namespace, name, verb, status: status.as_u16(), hint }
    }

    fn names(&self) -> (String, String) {
        (self.namespace.to_owned(), self.name.to_owned())
    }

    fn collection(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.namespace)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.name)
    }
}

/// The string member `name` of the object at `pointer`; names may hold slashes.
fn text<'a>(value: &'a Value, pointer: &str, name: &str) -> Option<&'a str> {
    value.pointer(pointer)?.get(name)?.as_str()
}

/// Adds the members of `change` to `into`, objects member by member.
fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (name, value) in change {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_keeps_what_others_wrote() {
        let mut object = json!({"data": {"mine": "1", "agent-card.json": "old"}, "metadata": {"uid": "u"}});
        merge(
            &mut object,
            &json!({"data": {"agent-card.json": "new"}, "metadata": {"labels": {"a/b": "c"}}}),
        );
        let wanted = json!({
            "data": {"mine": "1", "agent-card.json": "new"},
            "metadata": {"uid": "u", "labels": {"a/b": "c"}},
        });
        assert_eq!(object, wanted);
    }
}
