//! What goes wrong with a real MLflow, or a nasty one, and what must never be said.

use anyhow::{Context as _, Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::{literals, tracked};
use e2e::services::runs::{Experiments, log_run};
use e2e::services::tracking::{
    COMPONENT, Found, ID, TOKEN, Tracking, answer, created, refused, scripted, set_available,
};
use e2e::services::{Fault, Proxy, Seen, Servers, mlflow, without_pods};
use e2e::{Ns, kinds, objects, secs, wait_for};
use local_cluster::ComponentOptions;
use local_cluster::services::{Mlflow, MlflowOptions};
use serde_json::{Value, json};

use super::{CONDITION, FAILED, GRANT, weather};

/// A short form of an hour (decision 30), by a factor of 1200.
const RESYNC: &str = "--mlflow-resync-period=3s";

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_fault_the_server_goes_comes_back_and_moves() -> Result<()> {
    let server = mlflow().await?;
    let proxy = Proxy::before(server.url()).await?;
    let tracking = Tracking::start(Found::Object(proxy.url()), [RESYNC]).await?;
    let ns = tracking.namespace("moving", Value::Null).await?;
    ns.create(tracked("weather")).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    let before = tracking.until_configured(&ns, secs(20), "weather").await?;
    ns.until_condition(secs(10), "weather", CONDITION, "True/Configured").await?;

    proxy.down();
    let mark = proxy.mark();
    let news = ns.create(tracked("news")).await?;
    ns.create(objects::agent_runtime("news", "news")).await?;
    let waiting = ns.until_condition(secs(30), "news", CONDITION, "Unknown/Pending").await?;
    ensure!(waiting.condition(CONDITION).message.contains("ServerUnavailable"), "{waiting}");
    let verified = |seen: &Seen| seen.path.contains("experiments/get?");
    wait_for(secs(30), "a look for the experiment in vain", async || {
        Ok(proxy.since(mark).iter().any(verified).then_some(()))
    })
    .await?;
    // Who has its experiment keeps it, and its condition; who has none is left alone.
    let now = ns.get(kinds::AGENT_RUNTIME, "weather").await?;
    ensure!(now.condition(CONDITION).short() == "True/Configured", "{}", now.readable());
    ensure!(ns.get(kinds::DEPLOYMENT, "weather").await?.template() == before.template());
    ensure!(ns.get(kinds::DEPLOYMENT, "news").await?.template() == news.template());
    proxy.heal();
    tracking.until_configured(&ns, secs(120), "news").await?;
    // The condition is written after the answer to the patch: nothing of the first round is under way any more.
    ns.until_condition(secs(30), "news", CONDITION, "True/Configured").await?;

    let mark = tracking.cluster().audit()?.mark()?;
    set_available(&tracking.global().await?, server.url(), true).await?;
    for name in ["weather", "news"] {
        let moved = |object: &Value| {
            object.template_annotation("mlflow.kagenti.io/tracking-uri") == Some(server.url())
        };
        let after = ns.until(secs(20), kinds::DEPLOYMENT, name, "the other address", moved).await?;
        let env = literals(&after, "agent");
        let (experiment, _) = log_run(server.python(), &env).await?;
        ensure!(after.template_annotation(ID) == Some(experiment.as_str()), "{env:?}");
    }
    let writes = tracking.object_writes(mark, COMPONENT)?;
    // A 409 changed nothing: the Deployment's own controller wrote its status in between.
    let patches: Vec<_> =
        writes.iter().filter(|write| write.resource == "deployments" && write.code != 409).collect();
    ensure!(patches.len() == 2, "patches of two workloads: {patches:#?}");
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_fault_deleted_and_renamed_on_the_server() -> Result<()> {
    let server = mlflow().await?;
    let experiments = Experiments::at(server.url());
    let tracking = Tracking::start(Found::Flag(server.url().to_owned()), [RESYNC]).await?;
    let ns = tracking.namespace("by-hand", Value::Null).await?;
    ns.create(tracked("weather")).await?;
    let workload = tracking.until_configured(&ns, secs(20), "weather").await?;
    let id = workload.template_annotation(ID).context("an id")?.to_owned();
    experiments.delete(&id).await?;
    wait_for(secs(30), "the experiment to be restored", async || {
        let found = experiments.by_name("by-hand/weather").await?.unwrap_or_default();
        Ok((found.text("/lifecycle_stage") == "active").then_some(()))
    })
    .await?;
    ensure!(ns.get(kinds::DEPLOYMENT, "weather").await?.template() == workload.template());
    experiments.rename(&id, "by-hand/renamed").await?;
    let renewed = |object: &Value| object.template_annotation(ID).is_some_and(|now| now != id);
    let after = ns.until(secs(30), kinds::DEPLOYMENT, "weather", "another experiment", renewed).await?;
    let (experiment, _) = log_run(server.python(), &literals(&after, "agent")).await?;
    ensure!(after.template_annotation(ID) == Some(experiment.as_str()), "{experiment}");
    Ok(())
}

/// One server that asks for a password and knows one name of its own.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_fault_refusals_of_a_real_server() -> Result<()> {
    let host = Servers::suite().await?;
    let server = Mlflow::start(
        host.cluster(),
        MlflowOptions {
            name: "mlflow-refuses".to_owned(),
            basic_auth: true,
            allowed_hosts: vec!["127.0.0.1:*".to_owned()],
            ..MlflowOptions::default()
        },
    )
    .await?;
    let other_name = server.url().replace("127.0.0.1", "localhost");
    let tracking = Tracking::start(Found::Object(other_name.clone()), [""; 0]).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    let made = ns.create(tracked("weather")).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    let says = async |code: &str| {
        let refused = |runtime: &Value| {
            let condition = runtime.condition(CONDITION);
            condition.short() == FAILED && condition.message.contains(code)
        };
        let runtime = ns.until(secs(30), kinds::AGENT_RUNTIME, "weather", code, refused).await?;
        anyhow::Ok(runtime.condition(CONDITION).message)
    };
    let message = says("HostRejected").await?;
    let sent = other_name.trim_start_matches("http://");
    ensure!(message.contains("--allowed-hosts") && message.contains(sent), "{message}");
    set_available(&tracking.global().await?, server.url(), true).await?;
    says("Unauthenticated").await?;
    ensure!(ns.get(kinds::DEPLOYMENT, "weather").await?.template() == made.template());
    ensure!(ns.find(kinds::ROLE, GRANT).await?.is_none());
    Ok(())
}

/// Permission refused: by MLflow, then by Kubernetes.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_fault_permission_refused() -> Result<()> {
    let server = scripted(|_| refused(403, "PERMISSION_DENIED"), Value::Null).await?;
    let process = ComponentOptions::new(COMPONENT)
        .edit_rights(|rights| assert!(rights.drop_resource("experiments"), "there was none"));
    let tracking = Tracking::start_as(without_pods(), Found::Object(server.url()), process).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    let made = ns.create(tracked("weather")).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    let runtime = ns.until_condition(secs(20), "weather", CONDITION, FAILED).await?;
    ensure!(runtime.condition(CONDITION).message.contains("PermissionDenied"), "{runtime}");

    server.fault(|seen| Some(answer(seen, || created("3"), &Value::Null)));
    // A look at once, instead of in 5 min.
    ns.annotate(kinds::DEPLOYMENT, "weather", json!({"mlflow.kagenti.io/inject": "template"})).await?;
    let runtime = ns.until_condition(secs(20), "weather", CONDITION, "False/RBACForbidden").await?;
    let message = runtime.condition(CONDITION).message;
    ensure!(message.contains(GRANT) && message.contains("mlflow.kubeflow.org"), "{message}");
    ns.until_event(secs(10), "weather", "MLflowRBACForbidden").await?;
    // No variables without permission (mlflow §7.3), and no binding to a Role that is not there.
    ensure!(ns.find(kinds::ROLE_BINDING, GRANT).await?.is_none());
    ensure!(ns.get(kinds::DEPLOYMENT, "weather").await?.template() == made.template());
    Ok(())
}

/// A server that answers with what it was sent, token included.
fn echo(status: u16, json: bool) -> impl Fn(&Seen) -> Option<Fault> + Send + Sync + 'static {
    move |seen| {
        let said = format!("you sent {:?}", seen.header("authorization"));
        Some(if json {
            Fault::json(status, &json!({"error_code": "SOMETHING", "message": said}))
        } else {
            Fault::html(status, &said)
        })
    }
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_fault_the_token_is_nowhere() -> Result<()> {
    let server = scripted(|_| created("5"), Value::Null).await?;
    let flag = ["--mlflow-send-token-over-http=true"];
    let tracking = Tracking::start(Found::Object(server.url()), flag).await?;
    let (ns, _) = weather(&tracking).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    ns.until_condition(secs(10), "weather", CONDITION, "True/Configured").await?;
    let answers = [(400, true), (404, false), (403, false), (422, true), (503, false)];
    for (number, (status, json)) in answers.into_iter().enumerate() {
        server.fault(echo(status, json));
        let name = format!("agent-{number}");
        ns.create(tracked(&name)).await?;
        ns.create(objects::agent_runtime(&name, &name)).await?;
        let said = |runtime: &Value| !runtime.condition(CONDITION).reason.is_empty();
        ns.until(secs(30), kinds::AGENT_RUNTIME, &name, "a condition", said).await?;
        ns.until_event(secs(10), &name, "MLflowExperimentFailed").await?;
    }
    let bearer = format!("Bearer {TOKEN}");
    ensure!(server.seen().iter().any(|seen| seen.header("authorization") == Some(&bearer)), "never sent");
    nowhere(&tracking, &ns).await
}

/// Neither logs nor objects nor metrics nor the process list hold the token.
async fn nowhere(tracking: &Tracking, ns: &Ns) -> Result<()> {
    let component = tracking.component();
    let log = component.log();
    ensure!(log.contains("DEBUG") || log.contains("debug"), "the log is not one of level debug");
    let mut places =
        vec![("the log".to_owned(), log), ("a metric".to_owned(), component.metrics_text().await?)];
    for kind in [
        kinds::EVENT,
        kinds::AGENT_RUNTIME,
        kinds::DEPLOYMENT,
        kinds::ROLE,
        kinds::ROLE_BINDING,
        kinds::CONFIG_MAP,
        kinds::SECRET,
    ] {
        let objects = ns.list(kind, "").await?;
        places.push((format!("an object of kind {}", kind.kind), Value::Array(objects).to_string()));
    }
    for file in ["cmdline", "environ"] {
        let path = format!("/proc/{}/{file}", component.pid());
        let bytes = std::fs::read(&path).with_context(|| format!("reading {path}"))?;
        places.push((format!("the {file} of the process"), String::from_utf8_lossy(&bytes).into_owned()));
    }
    for (place, text) in places {
        ensure!(!text.is_empty(), "{place} is empty");
        let at = text.find(TOKEN).map(|at| text.get(at.saturating_sub(200)..at + TOKEN.len()));
        ensure!(at.is_none(), "{place} holds the token: {at:?}");
    }
    Ok(())
}
