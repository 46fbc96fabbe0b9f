//! Scenarios 1, 3, 4, 5, 7, 13: setting up, in peace.

use anyhow::{Context as _, Result, ensure};
use e2e::json::Json as _;
use e2e::services::agents::{TYPE, literals, template_container, tracked};
use e2e::services::tracking::{
    self, Found, ID, TOKEN, Tracking, calls, created, experiment, marks, refused, scripted, set_available,
};
use e2e::services::{Proxy, Seen, runs, without_pods};
use e2e::suite::fixture;
use e2e::{Ns, Options, exposition, kinds, objects, secs, wait_for};
use serde_json::{Value, json};

use super::{CONDITION, FAILED, GRANT, VARIABLES, names, weather};

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
    let allowed = json!([{
        "apiGroups": ["mlflow.kubeflow.org"],
        "resources": ["experiments"],
        "resourceNames": ["weather"],
        "verbs": ["get", "update"],
    }]);
    ensure!(role["rules"] == allowed, "{role}");
    let binding = ns.get(kinds::ROLE_BINDING, GRANT).await?;
    let to = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": GRANT});
    ensure!(binding["roleRef"] == to, "{binding}");
    let subjects = json!([{"kind": "ServiceAccount", "name": "weather-sa", "namespace": "team1"}]);
    ensure!(binding["subjects"] == subjects, "{binding}");
    let owner = json!([
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "weather", "uid": workload.uid()}
    ]);
    for object in [&role, &binding] {
        ensure!(object.label("app.kubernetes.io/managed-by") == Some("kagenti-operator"), "{object}");
        ensure!(object["metadata"]["ownerReferences"] == owner, "{object}");
    }

    // A repetition would come at once.
    ns.until_event(secs(10), "weather", CONDITION).await?;
    tokio::time::sleep(secs(2)).await;
    let events = ns.events("weather", CONDITION).await?;
    ensure!(Ns::occurrences(&events) == 1, "{events:?}");
    ensure!(events[0].text("/reportingController") == "mlflow-controller", "{events:?}");
    ensure!(events[0].text("/action") == "ConfigureMLflow", "{events:?}");
    let creates = calls(&server, "experiments/create");
    ensure!(creates.len() == 1, "{} creates", creates.len());
    ensure!(creates[0].header(runs::WORKSPACE) == Some("team1"), "{:?}", creates[0]);
    ensure!(creates[0].header("authorization") == Some(format!("Bearer {TOKEN}").as_str()));
    let body = json!({"name": "weather", "tags": [
        {"key": "kagenti.io/namespace", "value": "team1"},
        {"key": "kagenti.io/workload", "value": "Deployment/weather"},
    ]});
    ensure!(creates[0].json() == body, "{}", creates[0].json());
    Ok(())
}

/// 400 and 409, for two workloads of one namespace.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_03_exists_already() -> Result<()> {
    let server = Proxy::scripted(|seen| {
        let first = seen.json()["name"] == "weather" || seen.path.ends_with("=weather");
        let (status, id, name) = if first { (400, "99", "weather") } else { (409, "98", "news") };
        let exists = || refused(status, "RESOURCE_ALREADY_EXISTS");
        Some(tracking::answer(seen, exists, &experiment(id, name, "active")))
    })
    .await?;
    let tracking = Tracking::start(Found::Object(server.url()), [""; 0]).await?;
    let (ns, workload) = weather(&tracking).await?;
    ensure!(workload.template_annotation(ID) == Some("99"), "{:?}", marks(&workload));
    ns.create(tracked("news")).await?;
    let workload = tracking.until_configured(&ns, secs(10), "news").await?;
    ensure!(workload.template_annotation(ID) == Some("98"), "{:?}", marks(&workload));
    let answers: Vec<u16> = calls(&server, "experiments/create").iter().map(|seen| seen.status).collect();
    ensure!(answers == [400, 409], "{answers:?}");
    let labels = [("endpoint", "create"), ("code", "RESOURCE_ALREADY_EXISTS")];
    let page = tracking.component().metrics_text().await?;
    let counted = exposition::sum(&page, "mlflow_ctl_api_requests_total", &labels);
    ensure!((counted - 2.0).abs() < f64::EPSILON, "{counted} answers of this code are counted");
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_04_deleted_experiment() -> Result<()> {
    let exists = |_: &Seen| refused(400, "RESOURCE_ALREADY_EXISTS");
    let server = scripted(exists, experiment("77", "weather", "deleted")).await?;
    let tracking = Tracking::start(Found::Object(server.url()), [""; 0]).await?;
    let (ns, workload) = weather(&tracking).await?;
    ensure!(workload.template_annotation(ID) == Some("77"), "{:?}", marks(&workload));
    let restores = calls(&server, "experiments/restore");
    ensure!(restores.len() == 1 && restores[0].json() == json!({"experiment_id": "77"}), "{restores:?}");

    tracking.restart_with(&["--mlflow-restore-deleted=false"]).await?;
    let named = tracked("other").annotation("mlflow.kagenti.io/experiment", "weather");
    let made = ns.create(named).await?;
    ns.create(objects::agent_runtime("other", "other")).await?;
    let runtime = ns.until_condition(secs(20), "other", CONDITION, FAILED).await?;
    ensure!(runtime.condition(CONDITION).message.contains("ExperimentDeleted"), "{runtime}");
    let now = ns.get(kinds::DEPLOYMENT, "other").await?;
    ensure!(now.template() == made.template(), "the template was patched");
    ensure!(calls(&server, "experiments/restore").len() == 1, "it was restored");
    Ok(())
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_05_late_mlflow() -> Result<()> {
    let server = scripted(|_| created("5"), Value::Null).await?;
    let options = Options { fixtures: Vec::new(), ..without_pods() };
    let tracking = Tracking::start_on(options, Found::NotYet, [""; 0]).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    let made = ns.create(tracked("weather")).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    ns.until_condition(secs(20), "weather", CONDITION, "Unknown/MLflowUnavailable").await?;
    tokio::time::sleep(secs(3)).await;
    let now = ns.get(kinds::DEPLOYMENT, "weather").await?;
    ensure!(now.template() == made.template(), "something was written without a server");
    ensure!(ns.find(kinds::ROLE, GRANT).await?.is_none());
    ensure!(ns.find(kinds::ROLE_BINDING, GRANT).await?.is_none());

    tracking.cluster().install_crds_from(&fixture("mlflow")).await?;
    let global = tracking.global().await?;
    wait_for(secs(20), "the kind to be served", async || {
        tracking::create_mlflow(&global, &server.url()).await.map(Some)
    })
    .await?;
    let configured = tracking.until_configured(&ns, secs(90), "weather").await?;
    ensure!(configured["metadata"]["labels"] == made["metadata"]["labels"], "somebody touched it");
    // It comes and goes: nothing happens to who is set up (mlflow §13).
    set_available(&global, &server.url(), false).await?;
    ns.until_condition(secs(10), "weather", CONDITION, "Unknown/MLflowUnavailable").await?;
    set_available(&global, &server.url(), true).await?;
    ns.until_condition(secs(10), "weather", CONDITION, "True/Configured").await?;
    let now = ns.get(kinds::DEPLOYMENT, "weather").await?;
    ensure!(now.template() == configured.template(), "the template was patched");
    Ok(())
}

/// A Deployment whose container `agent` takes the tracking URI from a ConfigMap.
fn with_own_uri(name: &str) -> Value {
    let own = json!({
        "name": VARIABLES[0],
        "valueFrom": {"configMapKeyRef": {"name": "mine", "key": "uri"}},
    });
    let agent = json!({"name": "agent", "image": "example.com/agent:1", "env": [own]});
    let helper = json!({"name": "helper", "image": "example.com/agent:1"});
    tracked(name).containers(json!([agent, helper])).into()
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn mlflow_07_user_values_win() -> Result<()> {
    let server = scripted(|_| created("7"), Value::Null).await?;
    let tracking = Tracking::start(Found::Object(server.url()), [""; 0]).await?;
    let ns = tracking.namespace("team1", Value::Null).await?;
    let made = ns.create(with_own_uri("weather")).await?;
    let workload = tracking.until_configured(&ns, secs(10), "weather").await?;
    ensure!(names(&workload, "helper") == VARIABLES, "{}", workload.readable());
    ensure!(names(&workload, "agent") == VARIABLES[..1], "{}", workload.readable());
    let uri = |workload: &Value| {
        template_container(workload, "agent").and_then(|agent| agent.pointer("/env/0")).cloned()
    };
    ensure!(uri(&workload) == uri(&made), "{}", workload.readable());
    let event = ns.until_event(secs(10), "weather", "MLflowEnvPreserved").await?;
    let note = event.text("/note");
    ensure!(note.contains("agent") && !note.contains("helper"), "{event}");

    tracking.restart_with(&["--mlflow-env-policy=overwrite"]).await?;
    ns.create(with_own_uri("news")).await?;
    let workload = tracking.until_configured(&ns, secs(10), "news").await?;
    let literal = json!({"name": VARIABLES[0], "value": server.url()});
    ensure!(uri(&workload) == Some(literal), "{:?}", uri(&workload));
    ensure!(names(&workload, "agent") == VARIABLES, "{}", workload.readable());
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
    let configured = |object: &Value| object.template_annotation(ID).is_some();
    ns.until(secs(10), kinds::STATEFUL_SET, "weather", "its experiment", configured).await?;
    let other = "kagenti-mlflow-weather:statefulset";
    for (name, account) in [(GRANT, "weather-sa"), (other, "set-sa")] {
        ns.get(kinds::ROLE, name).await?;
        let binding = ns.get(kinds::ROLE_BINDING, name).await?;
        ensure!(binding["roleRef"]["name"] == name, "{binding}");
        ensure!(binding["subjects"][0]["name"] == account, "{binding}");
    }
    ns.delete(kinds::STATEFUL_SET, "weather").await?;
    ns.gone(secs(30), kinds::ROLE, other).await.context("garbage collection")?;
    ns.gone(secs(30), kinds::ROLE_BINDING, other).await.context("garbage collection")?;
    ns.holds(secs(3), kinds::ROLE, GRANT, "the Deployment's Role", |_| true).await?;
    ns.get(kinds::ROLE_BINDING, GRANT).await.map(drop)
}
