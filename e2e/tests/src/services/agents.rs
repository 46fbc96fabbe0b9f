//! Agents of the services suite, and what the components leave in their namespace.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use serde_json::{Value, json};

use super::realm::Account;
use crate::json::Json as _;
use crate::objects::{self, Object};
use crate::{Ns, kinds};

/// Beginning of every credentials Secret's name (client-registration §8).
pub const SECRET_PREFIX: &str = "kagenti-keycloak-client-credentials-";
/// Template annotation that names the Secret (client-registration §9).
pub const SECRET_ANNOTATION: &str = "kagenti.io/keycloak-client-credentials-secret-name";
/// Template annotation with the revision, from the second one on.
pub const REVISION_ANNOTATION: &str = "kagenti.io/keycloak-client-credentials-revision";
/// Annotation of the Secret with the workload it speaks of, `<namespace>/<kind>/<name>`.
pub const WORKLOAD_ANNOTATION: &str = "kagenti.io/workload";
/// The label that makes a workload an agent.
pub const TYPE: &str = "kagenti.io/type";

/// A Deployment whose pod template says that it is an agent (client-registration §3).
pub fn agent(name: &str) -> Object {
    objects::deployment(name).template_label(TYPE, "agent")
}

/// A Deployment that says so in its own labels (mlflow §2), with ServiceAccount `<name>-sa` and the containers `agent`
/// and `helper`.
pub fn tracked(name: &str) -> Object {
    let container = |name: &str| json!({"name": name, "image": "example.com/agent:1"});
    objects::deployment(name)
        .label(TYPE, "agent")
        .pod_spec(json!({"serviceAccountName": format!("{name}-sa")}))
        .containers(json!([container("agent"), container("helper")]))
}

/// An `authbridge-config` with Keycloak's address and realm.
pub fn authbridge_config(url: &str, realm: &str) -> Object {
    objects::config_map("authbridge-config", json!({"KEYCLOAK_URL": url, "KEYCLOAK_REALM": realm}))
}

/// The name of a workload's credentials Secret, from the template annotation or the component's own Secrets.
pub async fn credentials_secret(ns: &Ns, workload: &str) -> Result<Option<Value>> {
    let secrets = ns.list(kinds::SECRET, "app.kubernetes.io/managed-by=kagenti-operator").await?;
    Ok(secrets.into_iter().find(|secret| {
        let of = secret.annotation(WORKLOAD_ANNOTATION).unwrap_or_default();
        secret.name().starts_with(SECRET_PREFIX) && of.rsplit('/').next() == Some(workload)
    }))
}

/// Waits for a workload's credentials Secret.
pub async fn until_credentials(ns: &Ns, limit: std::time::Duration, workload: &str) -> Result<Value> {
    let what = format!("the credentials Secret of {workload} in {}", ns.name());
    crate::wait_for(limit, &what, async || credentials_secret(ns, workload).await).await
}

/// What a credentials Secret holds.
pub fn account(secret: &Value) -> Result<Account> {
    let read = |key: &str| -> Result<String> {
        let encoded = secret.pointer("/data").and_then(|data| data.get(key)).and_then(Value::as_str);
        let encoded = encoded.with_context(|| format!("the Secret has no {key}"))?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).context("base64")?;
        String::from_utf8(bytes).context("text")
    };
    Ok(Account { id: read("client-id.txt")?, secret: read("client-secret.txt")? })
}

/// A container of a workload's pod template.
pub fn template_container<'w>(workload: &'w Value, name: &str) -> Option<&'w Value> {
    workload.items("/spec/template/spec/containers").iter().find(|container| container.text("/name") == name)
}

/// The environment that a workload's container gets as literals, by name.
pub fn literals(workload: &Value, container: &str) -> Vec<(String, String)> {
    let container = template_container(workload, container);
    let env = container.map(|container| container.items("/env").to_vec()).unwrap_or_default();
    env.iter()
        .filter(|variable| variable.get("valueFrom").is_none())
        .map(|variable| (variable.text("/name").to_owned(), variable.text("/value").to_owned()))
        .collect()
}
