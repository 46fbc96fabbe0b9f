//! Scenarios 2, 6, 15, 19: keeping, changing, removing.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::{TYPE, tracked};
use e2e::services::tracking::{COMPONENT, Found, Tracking, calls, created, experiment, marks, scripted};
use e2e::services::{bare, without_pods};
use e2e::{Options, kinds, objects, secs, wait_for};
use local_cluster::ComponentOptions;
use serde_json::{Value, json};

use super::{CONDITION, GRANT, VARIABLES, names, weather};

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_02_nothing_to_do() -> Result<()> {
    let found = experiment("123", "weather", "active");
    let server = scripted(|_| created("123"), found).await?;
    let tracking = Tracking::start_on(bare(), Found::Object(server.url()), [""; 0]).await?;
    let ns = tracking.with_account("team1").await?;
    ns.create(tracked("weather")).await?;
    tracking.until_configured(&ns, secs(10), "weather").await?;
    ns.rolled_out(secs(60), kinds::DEPLOYMENT, "weather").await?;
    // Its controllers write the status a last time after the rollout.
    wait_for(secs(60), "the Deployment to be left alone", async || {
        ns.stays(secs(2), kinds::DEPLOYMENT, "weather").await.map(Some)
    })
    .await?;
    let mark = tracking.cluster().audit()?.mark()?;
    let creates = calls(&server, "experiments/create").len();
    tracking.restart_with(&[]).await?;
    let touched = ns.set_labels(kinds::DEPLOYMENT, "weather", json!({"unrelated": "touch"})).await?;
    wait_for(secs(30), "a look at the workload", async || {
        Ok((tracking.count("configured").await? > 0.0).then_some(()))
    })
    .await?;
    let same = |object: &Value| object.version() == touched.version();
    ns.holds(secs(5), kinds::DEPLOYMENT, "weather", "the version of the touch", same).await?;
    let writes = tracking.object_writes(mark, COMPONENT)?;
    ensure!(writes.is_empty(), "{writes:?}");
    ensure!(calls(&server, "experiments/create").len() == creates, "another create");
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_06_self_heal() -> Result<()> {
    let found = experiment("123", "weather", "active");
    let server = scripted(|_| created("123"), found).await?;
    let tracking = Tracking::start(Found::Object(server.url()), [""; 0]).await?;
    let (ns, before) = weather(&tracking).await?;
    let role = ns.get(kinds::ROLE, GRANT).await?;
    ns.delete(kinds::ROLE, GRANT).await?;
    let again = |object: &Value| object.uid() != role.uid() && object["rules"] == role["rules"];
    ns.until(secs(10), kinds::ROLE, GRANT, "the Role", again).await?;

    let mut containers = before.items("/spec/template/spec/containers").to_vec();
    let helper = containers.iter_mut().find(|container| container.text("/name") == "helper");
    let env = helper.and_then(|helper| helper["env"].as_array_mut()).context("its variables")?;
    env.retain(|variable| variable.text("/name") != VARIABLES[2]);
    let without = json!({"template": {"spec": {"containers": containers}}});
    let edited = ns.set_spec(kinds::DEPLOYMENT, "weather", without).await?;
    ensure!(names(&edited, "helper").len() == 3, "{}", edited.readable());
    let complete = |object: &Value| {
        let (mut all, mut wanted) = (names(object, "helper"), VARIABLES);
        all.sort_unstable();
        wanted.sort_unstable();
        all == wanted && names(object, "agent") == VARIABLES
    };
    ns.until(secs(10), kinds::DEPLOYMENT, "weather", "the variable", complete).await?;

    let other = json!({"template": {"spec": {"serviceAccountName": "new-sa", "serviceAccount": null}}});
    ns.set_spec(kinds::DEPLOYMENT, "weather", other).await?;
    let follows =
        |binding: &Value| binding.items("/subjects").len() == 1 && binding["subjects"][0]["name"] == "new-sa";
    ns.until(secs(10), kinds::ROLE_BINDING, GRANT, "the new subject", follows).await?;
    let creates = calls(&server, "experiments/create").len();
    ensure!(creates == 1, "{creates} creates");
    Ok(())
}

/// One loses its label, one becomes a tool; both at the same time, and a third while nobody looks.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_15_un_enrolment() -> Result<()> {
    let server = scripted(|_| created("15"), Value::Null).await?;
    let tracking = Tracking::start(Found::Object(server.url()), [""; 0]).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    let all = [("weather", Value::Null), ("turned", json!("tool")), ("unseen", Value::Null)];
    for (name, _) in &all {
        ns.create(tracked(name)).await?;
        let workload = tracking.until_configured(&ns, secs(10), name).await?;
        let mut containers = workload.items("/spec/template/spec/containers").to_vec();
        containers[1]["env"].as_array_mut().context("env")?.push(json!({"name": "MLFLOW_OWN", "value": "1"}));
        ns.set_spec(kinds::DEPLOYMENT, name, json!({"template": {"spec": {"containers": containers}}}))
            .await?;
    }
    for (name, label) in &all[..2] {
        ns.set_labels(kinds::DEPLOYMENT, name, json!({TYPE: label})).await?;
    }
    let forbidden = async |name: &str| {
        let grant = format!("kagenti-mlflow-{name}");
        ns.gone(secs(10), kinds::ROLE, &grant).await?;
        ns.gone(secs(10), kinds::ROLE_BINDING, &grant).await
    };
    for (name, _) in &all[..2] {
        forbidden(name).await?;
    }
    // The process ends between the two steps: nothing but the marks tells the next one what is left to do.
    tracking.component().kill9().await?;
    for (name, _) in &all[..2] {
        ensure!(!marks(&ns.get(kinds::DEPLOYMENT, name).await?).is_empty(), "{name} is stripped already");
    }
    let (name, label) = &all[2];
    ns.set_labels(kinds::DEPLOYMENT, name, json!({TYPE: label})).await?;
    tracking.component().restart().await?;
    tracking.component().wait_ready(secs(60)).await?;
    forbidden(name).await?;
    for (name, _) in &all {
        let bare = |object: &Value| {
            marks(object).is_empty()
                && names(object, "agent").is_empty()
                && names(object, "helper") == ["MLFLOW_OWN"]
        };
        ns.until(secs(60), kinds::DEPLOYMENT, name, "our settings to go", bare).await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_19_condition() -> Result<()> {
    let server = scripted(|_| created("19"), experiment("19", "weather", "active")).await?;
    let options = Options {
        runtime_ctl: vec![ComponentOptions::new("runtime-ctl").args(["--rollout-qps=0"])],
        ..without_pods()
    };
    let tracking = Tracking::start_on(options, Found::Object(server.url()), [""; 0]).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    ns.create(tracked("weather").replicas(0)).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    ns.until_condition(secs(30), "weather", CONDITION, "True/Configured").await?;
    let first = ns.until_ready(secs(30), "weather").await?;
    // Sorted: their order on the server is that of whoever applied last.
    let kinds_of = |runtime: &Value| -> BTreeSet<String> {
        runtime.items("/status/conditions").iter().map(|c| c.text("/type").to_owned()).collect()
    };
    let wanted = kinds_of(&first);
    ensure!(wanted.len() >= 3, "{wanted:?}");
    // Every generation makes both write: 100 writes in turn.
    for round in 0..50 {
        let identity = json!({"identity": {"allowedAudiences": [format!("round-{round}")]}});
        let generation = ns.set_spec(kinds::AGENT_RUNTIME, "weather", identity).await?.generation();
        let both = |runtime: &Value| {
            let (own, theirs) = (runtime.condition(CONDITION), runtime.condition("Ready"));
            own.observed_generation == generation && theirs.observed_generation == generation
        };
        let now = ns.until(secs(20), kinds::AGENT_RUNTIME, "weather", "both conditions", both).await?;
        ensure!(now.condition(CONDITION).short() == "True/Configured", "{}", now.readable());
        ensure!(now.condition("Ready").status == "True", "{}", now.readable());
        ensure!(kinds_of(&now) == wanted, "{wanted:?} became {:?}", kinds_of(&now));
    }
    Ok(())
}
