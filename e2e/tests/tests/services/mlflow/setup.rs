//! Scenarios 1 to 7, 13, 15, 19: setting up, in peace.

use anyhow::{Context as _, Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::{TYPE, literals, template_container, tracked};
use e2e::services::tracking::{
    self, Found, TOKEN, Tracking, calls, created, experiment, marks, refused, scripted, set_available,
};
use e2e::services::{bare, runs};
use e2e::suite::fixture;
use e2e::{Ns, Options, kinds, objects, secs, wait_for};
use local_cluster::ComponentOptions;
use serde_json::{Value, json};

/// The four variables in their order.
const VARIABLES: [&str; 4] =
    ["MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_AUTH", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"];
/// Role and RoleBinding of Deployment `weather`.
const GRANT: &str = "kagenti-mlflow-weather";

/// Names of a container's variables, in order.
fn names(workload: &Value, container: &str) -> Vec<String> {
    let container = template_container(workload, container);
    let env = container.map(|container| container.items("/env").to_vec()).unwrap_or_default();
    env.iter().map(|variable| variable.text("/name").to_owned()).collect()
}

/// A namespace with Deployment `weather`, configured.
async fn weather(tracking: &Tracking) -> Result<(Ns, Value)> {
    let ns = tracking.namespace("team1", Value::Null).await?;
    ns.create(tracked("weather")).await?;
    let workload = tracking.until_configured(&ns, secs(10), "weather").await?;
    Ok((ns, workload))
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_01_full_set_up() -> Result<()> {
    let server = scripted(|_| created("123"), Value::Null).await?;
    let flag = ["--mlflow-send-token-over-http=true"];
    let tracking = Tracking::start(Found::Object(server.url()), flag).await?;
    let (ns, workload) = weather(&tracking).await?;
    for container in ["agent", "helper"] {
        ensure!(names(&workload, container) == VARIABLES, "{container}: {:?}", names(&workload, container));
        let wanted = [server.url(), "kubernetes-namespaced".into(), "123".into(), "weather".into()];
        let values: Vec<String> =
            literals(&workload, container).into_iter().map(|(_, value)| value).collect();
        ensure!(values == wanted, "{container}: {values:?}");
    }
    let wanted = [
        ("mlflow.kagenti.io/experiment-id", "123".to_owned()),
        ("mlflow.kagenti.io/experiment-name", "weather".to_owned()),
        ("mlflow.kagenti.io/tracking-auth", "kubernetes-namespaced".to_owned()),
        ("mlflow.kagenti.io/tracking-uri", server.url()),
    ];
    ensure!(marks(&workload) == wanted.map(|(key, value)| (key.to_owned(), value)), "{:?}", marks(&workload));

    let role = ns.get(kinds::ROLE, GRANT).await?;
    let wanted = json!([{
        "apiGroups": ["mlflow.kubeflow.org"],
        "resources": ["experiments"],
        "resourceNames": ["weather"],
        "verbs": ["get", "update"],
    }]);
    ensure!(role["rules"] == wanted, "{role}");
    let binding = ns.get(kinds::ROLE_BINDING, GRANT).await?;
    ensure!(binding["roleRef"]["kind"] == "Role" && binding["roleRef"]["name"] == GRANT, "{binding}");
    ensure!(binding["subjects"][0]["name"] == "weather-sa", "{binding}");
    ensure!(binding["subjects"][0]["namespace"] == "team1", "{binding}");
    for object in [&role, &binding] {
        ensure!(object.label("app.kubernetes.io/managed-by") == Some("kagenti-operator"), "{object}");
        let owner = &object["metadata"]["ownerReferences"][0];
        ensure!(
            owner["uid"] == workload.uid() && owner.get("controller").is_none_or(|c| c == false),
            "{owner}"
        );
    }
    ns.until_event(secs(10), "weather", "MLflowConfigured").await?;
    let creates = calls(&server, "experiments/create");
    ensure!(creates.len() == 1, "{} creates", creates.len());
    ensure!(creates[0].header(runs::WORKSPACE) == Some("team1"), "{:?}", creates[0]);
    ensure!(creates[0].header("authorization") == Some(format!("Bearer {TOKEN}").as_str()));
    let tags = &creates[0].json()["tags"];
    ensure!(tags[0] == json!({"key": "kagenti.io/namespace", "value": "team1"}), "{tags}");
    ensure!(!tracking.component().log().contains(TOKEN), "the token is in the log");
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_02_nothing_to_do() -> Result<()> {
    let found = experiment("123", "weather", "active");
    let server = scripted(|_| created("123"), found).await?;
    let tracking = Tracking::start(Found::Object(server.url()), [""; 0]).await?;
    let (ns, _) = weather(&tracking).await?;
    ns.rolled_out(secs(40), kinds::DEPLOYMENT, "weather").await?;
    let mark = tracking.cluster().audit()?.mark()?;
    let creates = calls(&server, "experiments/create").len();
    tracking.component().terminate().await?;
    tracking.component().restart().await?;
    tracking.component().wait_ready(secs(60)).await?;
    ns.set_labels(kinds::DEPLOYMENT, "weather", json!({"unrelated": "touch"})).await?;
    tokio::time::sleep(secs(5)).await;
    let writes = tracking.object_writes(mark, tracking::COMPONENT)?;
    ensure!(writes.is_empty(), "{writes:?}");
    ensure!(calls(&server, "experiments/create").len() == creates, "another create");
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_03_exists_already() -> Result<()> {
    for status in [400, 409] {
        let found = experiment("99", "weather", "active");
        let server = scripted(move |_| refused(status, "RESOURCE_ALREADY_EXISTS"), found).await?;
        let tracking = Tracking::start(Found::Object(server.url()), [""; 0]).await?;
        let (_, workload) = weather(&tracking).await?;
        let id = workload.template_annotation("mlflow.kagenti.io/experiment-id");
        ensure!(id == Some("99"), "status {status}: {id:?}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_04_deleted_experiment() -> Result<()> {
    let deleted = || experiment("77", "weather", "deleted");
    let server = scripted(|_| refused(400, "RESOURCE_ALREADY_EXISTS"), deleted()).await?;
    let tracking = Tracking::start(Found::Object(server.url()), ["--mlflow-resync-period=0s"]).await?;
    let (_, workload) = weather(&tracking).await?;
    ensure!(workload.template_annotation("mlflow.kagenti.io/experiment-id") == Some("77"));
    let restores = calls(&server, "experiments/restore");
    ensure!(restores.len() == 1 && restores[0].json() == json!({"experiment_id": "77"}), "{restores:?}");
    drop(tracking);

    let server = scripted(|_| refused(400, "RESOURCE_ALREADY_EXISTS"), deleted()).await?;
    let flags = ["--mlflow-restore-deleted=false"];
    let tracking = Tracking::start(Found::Object(server.url()), flags).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    let made = ns.create(tracked("weather")).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    let failed = "False/ExperimentFailed";
    let runtime = ns.until_condition(secs(20), "weather", "MLflowConfigured", failed).await?;
    ensure!(runtime.condition("MLflowConfigured").message.contains("ExperimentDeleted"), "{runtime}");
    let now = ns.get(kinds::DEPLOYMENT, "weather").await?;
    ensure!(now.template() == made.template(), "the template was patched");
    ensure!(calls(&server, "experiments/restore").is_empty());
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_05_late_mlflow() -> Result<()> {
    let server = scripted(|_| created("5"), Value::Null).await?;
    let options = Options { fixtures: Vec::new(), ..bare() };
    let tracking = Tracking::start_on(options, Found::NotYet, [""; 0]).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    let made = ns.create(tracked("weather")).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    ns.until_condition(secs(20), "weather", "MLflowConfigured", "Unknown/MLflowUnavailable").await?;
    tokio::time::sleep(secs(3)).await;
    let now = ns.get(kinds::DEPLOYMENT, "weather").await?;
    ensure!(now.template() == made.template(), "something was written without a server");
    ensure!(ns.find(kinds::ROLE, GRANT).await?.is_none());

    tracking.cluster().install_crds_from(&fixture("mlflow")).await?;
    let global = tracking.global().await?;
    wait_for(secs(20), "the kind to be served", async || {
        tracking::create_mlflow(&global, &server.url()).await.map(Some)
    })
    .await?;
    tracking.until_configured(&ns, secs(90), "weather").await?;
    // It comes and goes: nothing happens to who is set up.
    let before = ns.get(kinds::DEPLOYMENT, "weather").await?;
    set_available(&global, &server.url(), false).await?;
    tokio::time::sleep(secs(3)).await;
    set_available(&global, &server.url(), true).await?;
    tokio::time::sleep(secs(3)).await;
    ensure!(ns.get(kinds::DEPLOYMENT, "weather").await?.template() == before.template());
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_06_self_heal() -> Result<()> {
    let found = experiment("123", "weather", "active");
    let server = scripted(|_| created("123"), found).await?;
    let tracking = Tracking::start(Found::Object(server.url()), [""; 0]).await?;
    let (ns, _) = weather(&tracking).await?;
    ns.delete(kinds::ROLE, GRANT).await?;
    ns.until(secs(10), kinds::ROLE, GRANT, "the Role", |_| true).await?;

    let workload = ns.get(kinds::DEPLOYMENT, "weather").await?;
    let mut containers = workload.items("/spec/template/spec/containers").to_vec();
    let helper = containers.iter_mut().find(|container| container.name_of() == "helper").context("helper")?;
    helper["env"].as_array_mut().context("its variables")?.retain(|v| v.text("/name") != VARIABLES[2]);
    let template = json!({"template": {"spec": {"containers": containers}}});
    ns.set_spec(kinds::DEPLOYMENT, "weather", template).await?;
    let complete = |object: &Value| {
        let mut all = names(object, "helper");
        all.sort_unstable();
        let mut wanted = VARIABLES.map(str::to_owned).to_vec();
        wanted.sort_unstable();
        all == wanted
    };
    ns.until(secs(10), kinds::DEPLOYMENT, "weather", "the variable", complete).await?;

    let other = json!({"template": {"spec": {"serviceAccountName": "new-sa", "serviceAccount": null}}});
    ns.set_spec(kinds::DEPLOYMENT, "weather", other).await?;
    let follows = |binding: &Value| binding["subjects"][0]["name"] == "new-sa";
    ns.until(secs(10), kinds::ROLE_BINDING, GRANT, "the new subject", follows).await.map(drop)
}

/// The name of a container.
trait NameOf {
    fn name_of(&self) -> &str;
}

impl NameOf for Value {
    fn name_of(&self) -> &str {
        self.text("/name")
    }
}

/// A Deployment whose container `agent` takes the tracking URI from a ConfigMap.
fn with_own_uri() -> Value {
    let own = json!({
        "name": "MLFLOW_TRACKING_URI",
        "valueFrom": {"configMapKeyRef": {"name": "mine", "key": "uri"}},
    });
    let agent = json!({"name": "agent", "image": "example.com/agent:1", "env": [own]});
    let helper = json!({"name": "helper", "image": "example.com/agent:1"});
    tracked("weather").containers(json!([agent, helper])).into()
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_07_user_values_win() -> Result<()> {
    let server = scripted(|_| created("7"), Value::Null).await?;
    let tracking = Tracking::start(Found::Object(server.url()), [""; 0]).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    ns.create(with_own_uri()).await?;
    let workload = tracking.until_configured(&ns, secs(10), "weather").await?;
    ensure!(names(&workload, "helper") == VARIABLES, "{}", workload.readable());
    let agent = template_container(&workload, "agent").context("agent")?;
    ensure!(agent["env"][0]["valueFrom"]["configMapKeyRef"]["name"] == "mine", "{agent}");
    let ours = literals(&workload, "agent");
    ensure!(ours.iter().all(|(name, _)| name == VARIABLES[1]), "{ours:?}");
    let event = ns.until_event(secs(10), "weather", "MLflowEnvPreserved").await?;
    ensure!(event.text("/note").contains("agent"), "{event}");
    drop(tracking);

    let tracking = Tracking::start(Found::Object(server.url()), ["--mlflow-env-policy=overwrite"]).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    ns.create(with_own_uri()).await?;
    let workload = tracking.until_configured(&ns, secs(10), "weather").await?;
    let ours = literals(&workload, "agent");
    ensure!(ours.contains(&("MLFLOW_TRACKING_URI".to_owned(), server.url())), "{ours:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_13_stateful_set_and_same_name() -> Result<()> {
    let server = scripted(|_| created("13"), experiment("13", "weather", "active")).await?;
    let tracking = Tracking::start(Found::Object(server.url()), [""; 0]).await?;
    let (ns, _) = weather(&tracking).await?;
    let set = objects::stateful_set("weather").label(TYPE, "agent");
    ns.create(set.pod_spec(json!({"serviceAccountName": "set-sa"}))).await?;
    let configured = |object: &Value| object.template_annotation("mlflow.kagenti.io/experiment-id").is_some();
    ns.until(secs(10), kinds::STATEFUL_SET, "weather", "its experiment", configured).await?;
    let other = "kagenti-mlflow-weather:statefulset";
    ns.get(kinds::ROLE, GRANT).await?;
    ns.get(kinds::ROLE, other).await?;
    ns.delete(kinds::STATEFUL_SET, "weather").await?;
    ns.gone(secs(30), kinds::ROLE, other).await?;
    ns.holds(secs(3), kinds::ROLE, GRANT, "the Deployment's Role", |_| true).await
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_15_un_enrolment() -> Result<()> {
    let server = scripted(|_| created("15"), Value::Null).await?;
    let tracking = Tracking::start(Found::Object(server.url()), [""; 0]).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    for (name, label) in [("weather", Value::Null), ("turned", json!("tool"))] {
        ns.create(tracked(name)).await?;
        let workload = tracking.until_configured(&ns, secs(10), name).await?;
        let mut containers = workload.items("/spec/template/spec/containers").to_vec();
        containers[1]["env"].as_array_mut().context("env")?.push(json!({"name": "MLFLOW_OWN", "value": "1"}));
        ns.set_spec(kinds::DEPLOYMENT, name, json!({"template": {"spec": {"containers": containers}}}))
            .await?;
        ns.set_labels(kinds::DEPLOYMENT, name, json!({TYPE: label})).await?;
        let grant = format!("kagenti-mlflow-{name}");
        ns.gone(secs(10), kinds::ROLE, &grant).await?;
        ns.gone(secs(10), kinds::ROLE_BINDING, &grant).await?;
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
        ..bare()
    };
    let tracking = Tracking::start_on(options, Found::Object(server.url()), [""; 0]).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    ns.create(tracked("weather")).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    ns.until_condition(secs(30), "weather", "MLflowConfigured", "True/Configured").await?;
    ns.until_ready(secs(30), "weather").await?;
    // Every generation makes both write.
    for round in 0..50 {
        let identity = json!({"identity": {"allowedAudiences": [format!("round-{round}")]}});
        ns.set_spec(kinds::AGENT_RUNTIME, "weather", identity).await?;
    }
    let both = |runtime: &Value| {
        let (own, theirs) = (runtime.condition("MLflowConfigured"), runtime.condition("Ready"));
        own.short() == "True/Configured"
            && own.observed_generation == runtime.generation()
            && theirs.observed_generation == runtime.generation()
            && theirs.status == "True"
    };
    let last = ns.until(secs(60), kinds::AGENT_RUNTIME, "weather", "both conditions", both).await?;
    let kinds_of: Vec<&str> = last.items("/status/conditions").iter().map(|c| c.text("/type")).collect();
    ensure!(kinds_of.len() >= 3, "{kinds_of:?}");
    Ok(())
}
