//! Scenario 18: another mutating webhook adds containers after ours.

use anyhow::{Result, ensure};
use e2e::admission_log::AdmissionLog;
use e2e::second_webhook::SecondWebhook;
use e2e::{Json as _, Ns, Suite, kinds};
use serde_json::{Value, json};

use super::fixture::{agent_pod, create_pod, team};

/// Sorts behind ours, so it is called second.
const CONFIGURATION: &str = "zz-webhook-18";

#[tokio::test]
async fn webhook_18_reinvocation() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = team(&suite, "webhook-18").await?;
    let global = suite.global().await?;
    let second = SecondWebhook::start(append).await?;
    global.create(second.registration(CONFIGURATION, ns.name())).await?;
    let outcome = check(&suite, &ns, &second).await;
    global.delete(kinds::MUTATING_WEBHOOK, CONFIGURATION).await?;
    outcome
}

async fn check(suite: &Suite, ns: &Ns, second: &SecondWebhook) -> Result<()> {
    e2e::wait_for(e2e::secs(20), "the second webhook to be called", async || {
        super::fixture::dry_run(ns, agent_pod("probe")).await?;
        Ok((second.calls() > 0).then_some(()))
    })
    .await?;
    let log = AdmissionLog::begin(suite.cluster())?;
    let first = json!([{"name": "prepare", "image": "example.com/prepare:1"}]);
    let (pod, _) = create_pod(ns, agent_pod("weather").spec(json!({"initContainers": first}))).await?;

    let calls = log.pod(ns.name(), "weather")?.calls;
    let order: Vec<_> =
        calls.iter().filter(|call| call.mutated).map(|call| (call.webhook.as_str(), call.again)).collect();
    ensure!(
        order == [("inject.kagenti.io", false), ("second.example.com", false), ("inject.kagenti.io", true)],
        "not the order of the scenario: {calls:?}"
    );
    assert_eq!(pod.containers(), ["agent", "authbridge-proxy", "late"]);
    for container in ["agent", "late"] {
        for variable in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            pod.expect_env(container, variable, "http://127.0.0.1:8081")?;
        }
        pod.expect_env(container, "NO_PROXY", "127.0.0.1,localhost")?;
    }
    // Relocated once.
    assert_eq!(pod.ports("agent")?, [("", 8001)]);
    pod.expect_env("agent", "PORT", "8001")?;
    assert_eq!(pod.env_names("agent")?.iter().filter(|name| **name == "PORT").count(), 1);
    assert_eq!(pod.ports("late")?, [("late", 7000)], "and nothing of the newcomer");
    assert!(pod.env("late", "PORT")?.is_none());
    assert_eq!(pod.ports("authbridge-proxy")?, [("http", 8000), ("forward-proxy", 8081)]);
    assert_eq!(pod.init_containers(), ["prepare", "late-init", "proxy-init"]);
    Ok(())
}

/// Appends a container and an ordinary init container, once, and only behind our sidecar.
fn append(pod: &Value) -> Vec<Value> {
    let has = |name: &str| pod.container(name).is_some();
    if !has("authbridge-proxy") || has("late") {
        return Vec::new();
    }
    let late = json!({"name": "late", "image": "example.com/late:1", "ports": [{"name": "late", "containerPort": 7000}]});
    let init = json!({"name": "late-init", "image": "example.com/late-init:1"});
    vec![
        json!({"op": "add", "path": "/spec/containers/-", "value": late}),
        json!({"op": "add", "path": "/spec/initContainers/-", "value": init}),
    ]
}
