//! Talking to MLflow: what is sent, what is repeated, and what an answer leads to (MLflow §5).

use std::sync::Arc;

use mlflow_ctl::{
    kinds::WorkloadKind,
    server::Server,
    settings::{Settings, Workspaces},
    tracking::{Code, Failure, Found, Tracking, Usage},
    workload::WorkloadKey,
};
use rest_client::{BaseUrl, options::NoObserver};
use rstest::rstest;
use serde_json::json;

use crate::mlflow::{Mlflow, error};

fn key() -> WorkloadKey {
    WorkloadKey { namespace: "team1".into(), kind: WorkloadKind::Deployment, name: "weather".into() }
}

fn server(mlflow: &Mlflow) -> Server {
    let url = BaseUrl::parse(&mlflow.url).unwrap();
    Server { text: url.to_string(), url, fixed: false }
}

fn tracking(settings: &Settings) -> Tracking {
    Tracking::new(settings, None, Arc::new(NoObserver)).unwrap()
}

fn with_workspaces() -> Usage {
    Usage { workspaces: true, auth: Some("kubernetes-namespaced".into()) }
}

fn without_workspaces() -> Usage {
    Usage { workspaces: false, auth: None }
}

async fn provision(mlflow: &Mlflow, settings: &Settings, usage: &Usage) -> Result<String, Failure> {
    tracking(settings).provision(&server(mlflow), usage, &key(), "weather").await
}

fn code<T: std::fmt::Debug>(result: Result<T, Failure>) -> Code {
    match result.unwrap_err() {
        Failure::Problem(problem) => problem.code,
        Failure::NoWorkspaces => panic!("no workspaces"),
    }
}

/// MLflow §5.1: the request in every detail.
#[tokio::test]
async fn what_is_sent() {
    let mlflow = Mlflow::start(true).await;
    let id = provision(&mlflow, &Settings::default(), &with_workspaces()).await.unwrap();
    assert_eq!(id, "1");
    let seen = mlflow.seen();
    let [create] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((create.method.as_str(), create.uri.as_str()), ("POST", "/api/2.0/mlflow/experiments/create"));
    assert_eq!(
        create.body,
        json!({"name": "weather", "tags": [{"key": "kagenti.io/namespace", "value": "team1"},
            {"key": "kagenti.io/workload", "value": "Deployment/weather"}]})
    );
    assert_eq!(create.headers["x-mlflow-workspace"], "team1");
    assert_eq!(create.headers["content-type"], "application/json");
    assert_eq!(create.headers["accept"], "application/json");
    assert!(create.headers["user-agent"].starts_with("mlflow-ctl/"));
    assert!(!create.headers.contains_key("origin"));
}

/// Scenario 12: no token over plain http unless the flag allows it.
#[rstest]
#[case(false)]
#[case(true)]
#[tokio::test]
async fn the_token_stays_at_home(#[case] allowed: bool) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s3cret\n").unwrap();
    let settings = Settings {
        mlflow_token_file: file.path().into(),
        mlflow_send_token_over_http: allowed,
        ..Settings::default()
    };
    let mlflow = Mlflow::start(true).await;
    tracking(&settings).usage(&server(&mlflow)).await.unwrap();
    provision(&mlflow, &settings, &with_workspaces()).await.unwrap();
    let sent = mlflow.seen()[0].headers.get("authorization").cloned();
    assert_eq!(sent.as_deref(), allowed.then_some("Bearer s3cret"));
}

/// Scenario 12: a login page is not followed.
#[tokio::test]
async fn a_redirect_is_an_authentication_error() {
    let mlflow = Mlflow::start(true).await;
    mlflow.always(Some((302, "")));
    let result = provision(&mlflow, &Settings::default(), &with_workspaces()).await;
    assert_eq!(code(result), Code::Unauthenticated);
    assert_eq!(mlflow.operations(), ["create"]);
}

/// Scenario 10: two failures, then fine: three calls.
#[tokio::test]
async fn transient_failures_are_repeated() {
    let mlflow = Mlflow::start(true).await;
    mlflow.script("create", 503, "busy");
    mlflow.script("create", 500, error("INTERNAL_ERROR", "x"));
    provision(&mlflow, &Settings::default(), &with_workspaces()).await.unwrap();
    assert_eq!(mlflow.operations(), ["create"; 3]);
}

/// Scenario 9: a refusal is not.
#[rstest]
#[case(400, error("INVALID_PARAMETER_VALUE", "bad name"), Code::InvalidRequest)]
#[case(401, "You are not authenticated".to_owned(), Code::Unauthenticated)]
#[case(403, "Invalid Host header - possible DNS rebinding attack detected".to_owned(), Code::HostRejected)]
#[case(404, "<html>".to_owned(), Code::UnexpectedResponse)]
#[case(200, "<html>sign in</html>".to_owned(), Code::UnexpectedResponse)]
#[case(200, "{}".to_owned(), Code::UnexpectedResponse)]
#[case(503, "running in --artifacts-only mode".to_owned(), Code::NotATrackingServer)]
#[tokio::test]
async fn refusals_are_not_repeated(#[case] status: u16, #[case] body: String, #[case] want: Code) {
    let mlflow = Mlflow::start(true).await;
    mlflow.always(Some((status, &body)));
    assert_eq!(code(provision(&mlflow, &Settings::default(), &with_workspaces()).await), want);
    assert_eq!(mlflow.operations(), ["create"]);
}

/// Scenario 3.
#[rstest]
#[case(400)]
#[case(409)]
#[tokio::test]
async fn an_existing_experiment_is_taken(#[case] status: u16) {
    let mlflow = Mlflow::start(true).await;
    mlflow.put("99", Some("team1"), "weather", false, None);
    mlflow.script("create", status, error("RESOURCE_ALREADY_EXISTS", "exists"));
    assert_eq!(provision(&mlflow, &Settings::default(), &with_workspaces()).await.unwrap(), "99");
    assert_eq!(mlflow.operations(), ["create", "get-by-name"]);
}

/// Scenario 4.
#[tokio::test]
async fn a_deleted_experiment_is_restored_or_left() {
    let mlflow = Mlflow::start(true).await;
    mlflow.put("77", Some("team1"), "weather", true, None);
    let keep = Settings { mlflow_restore_deleted: false, ..Settings::default() };
    assert_eq!(code(provision(&mlflow, &keep, &with_workspaces()).await), Code::ExperimentDeleted);
    assert_eq!(mlflow.operations(), ["create", "get-by-name"]);
    assert_eq!(provision(&mlflow, &Settings::default(), &with_workspaces()).await.unwrap(), "77");
    let seen = mlflow.seen();
    assert_eq!(seen[2].operation, "restore");
    assert_eq!(seen[2].body, json!({"experiment_id": "77"}));
}

/// Two restore at once: both are fine.
#[tokio::test]
async fn somebody_else_restored_it_first() {
    let mlflow = Mlflow::start(true).await;
    mlflow.put("77", Some("team1"), "weather", false, None);
    let deleted =
        json!({"experiment": {"experiment_id": "77", "name": "weather", "lifecycle_stage": "deleted"}});
    mlflow.script("get-by-name", 200, deleted.to_string());
    assert_eq!(provision(&mlflow, &Settings::default(), &with_workspaces()).await.unwrap(), "77");
    assert_eq!(mlflow.operations(), ["create", "get-by-name", "restore", "get-by-name"]);
}

/// "Exists" and then "does not exist": one more create, then back off.
#[tokio::test]
async fn a_name_that_is_taken_by_nobody() {
    let mlflow = Mlflow::start(true).await;
    mlflow.script("create", 400, error("RESOURCE_ALREADY_EXISTS", "constraint"));
    provision(&mlflow, &Settings::default(), &with_workspaces()).await.unwrap();
    assert_eq!(mlflow.operations(), ["create", "get-by-name", "create"]);
    mlflow.lose_everything();
    for _ in 0..2 {
        mlflow.script("create", 400, error("RESOURCE_ALREADY_EXISTS", "constraint"));
    }
    assert_eq!(
        code(provision(&mlflow, &Settings::default(), &with_workspaces()).await),
        Code::ServerUnavailable
    );
    assert_eq!(mlflow.operations(), ["create", "get-by-name", "create", "get-by-name"]);
}

/// A controller that may not create uses what exists.
#[tokio::test]
async fn forbidden_to_create() {
    let mlflow = Mlflow::start(true).await;
    mlflow.script("create", 403, error("PERMISSION_DENIED", "no"));
    assert_eq!(
        code(provision(&mlflow, &Settings::default(), &with_workspaces()).await),
        Code::PermissionDenied
    );
    mlflow.put("5", Some("team1"), "weather", false, None);
    mlflow.script("create", 403, "Permission denied");
    assert_eq!(provision(&mlflow, &Settings::default(), &with_workspaces()).await.unwrap(), "5");
}

/// Never two tenants in one experiment: without workspaces the tag decides, deleted or not.
#[rstest]
#[case::theirs(Some("team2"), false, Err(Code::ExperimentNameTaken))]
#[case::theirs_deleted(Some("team2"), true, Err(Code::ExperimentNameTaken))]
#[case::ours(Some("team1"), false, Ok("8"))]
#[case::nobodys(None, false, Ok("8"))]
#[tokio::test]
async fn an_experiment_of_another_namespace_is_not_taken(
    #[case] tag: Option<&str>,
    #[case] deleted: bool,
    #[case] want: Result<&str, Code>,
) {
    let mlflow = Mlflow::start(false).await;
    mlflow.put("8", None, "weather", deleted, tag);
    let result = provision(&mlflow, &Settings::default(), &without_workspaces()).await;
    let got = result.map_err(|failure| code::<()>(Err(failure)));
    assert_eq!(got.as_deref(), want.as_ref().map(|id| *id));
    assert!(!mlflow.operations().contains(&"restore".to_owned()));
}

/// A server that is too old for workspaces ignores that one was named: the tag decides there, too.
#[tokio::test]
async fn a_server_that_ignores_workspaces() {
    let mlflow = Mlflow::start(true).await;
    mlflow.script("create", 400, error("RESOURCE_ALREADY_EXISTS", "exists"));
    let theirs = json!({"experiment": {"experiment_id": "8", "name": "weather", "lifecycle_stage": "active",
        "tags": [{"key": "kagenti.io/namespace", "value": "team2"}]}});
    mlflow.script("get-by-name", 200, theirs.to_string());
    let result = provision(&mlflow, &Settings::default(), &with_workspaces()).await;
    assert_eq!(code(result), Code::ExperimentNameTaken);
}

/// The same when it is looked at again.
#[tokio::test]
async fn an_id_of_another_namespace_is_not_kept() {
    let mlflow = Mlflow::start(false).await;
    mlflow.put("8", None, "weather", false, Some("team2"));
    let found = tracking(&Settings::default())
        .verify(&server(&mlflow), &without_workspaces(), &key(), "weather", "8")
        .await;
    assert_eq!(code(found), Code::ExperimentNameTaken);
}

/// MLflow §9: what is still there, what is lost, and what only seems so.
#[tokio::test]
async fn verification() {
    let mlflow = Mlflow::start(true).await;
    let tracking = tracking(&Settings::default());
    let (server, usage, key) = (server(&mlflow), with_workspaces(), key());
    let verify = async |id: &str| tracking.verify(&server, &usage, &key, "weather", id).await;
    mlflow.put("1", Some("team1"), "weather", false, None);
    mlflow.put("2", Some("team1"), "other", false, None);
    mlflow.put("3", Some("team1"), "weather", true, None);
    mlflow.put("4", Some("team2"), "weather", false, None);
    assert_eq!(verify("1").await, Ok(Found::There));
    assert_eq!(verify("2").await, Ok(Found::Lost), "another name");
    assert_eq!(verify("3").await, Ok(Found::Restored));
    assert_eq!(verify("4").await, Ok(Found::Lost), "another workspace");
    assert_eq!(verify("9").await, Ok(Found::Lost));
    mlflow.script("get", 400, error("INVALID_PARAMETER_VALUE", "not a number"));
    assert_eq!(verify("x").await, Ok(Found::Lost));
    mlflow.script("get", 404, error("RESOURCE_DOES_NOT_EXIST", "Workspace 'team1' not found"));
    assert_eq!(code(verify("1").await), Code::WorkspaceNotFound);
}

/// MLflow §5.4: asked once per server, and again after the server contradicts.
#[tokio::test]
async fn the_server_is_asked_once() {
    let mlflow = Mlflow::start(true).await;
    let tracking = tracking(&Settings::default());
    let server = server(&mlflow);
    for _ in 0..3 {
        assert_eq!(tracking.usage(&server).await.unwrap(), with_workspaces());
    }
    assert_eq!(mlflow.all_operations(), ["server-info"]);
    mlflow.script("create", 500, error("FEATURE_DISABLED", "off"));
    let result = tracking.provision(&server, &with_workspaces(), &key(), "weather").await;
    assert_eq!(result, Err(Failure::NoWorkspaces));
    assert_eq!(tracking.usage(&server).await.unwrap(), without_workspaces());
    assert_eq!(mlflow.all_operations(), ["create"], "not retried, not asked again");
}

#[tokio::test]
async fn demanded_workspaces_that_are_off_are_an_error() {
    let mlflow = Mlflow::start(false).await;
    let settings = Settings { mlflow_workspaces: Workspaces::Always, ..Settings::default() };
    assert_eq!(code(provision(&mlflow, &settings, &with_workspaces()).await), Code::WorkspacesDisabled);
    assert_eq!(mlflow.operations(), ["create"]);
}

/// A dead server: the circuit opens, and from then on nothing is sent.
#[tokio::test]
async fn a_dead_server_is_left_alone() {
    let mlflow = Mlflow::start(true).await;
    mlflow.always(Some((503, "")));
    let tracking = tracking(&Settings::default());
    let (server, usage, key) = (server(&mlflow), with_workspaces(), key());
    let calls = (0..8).map(|_| tracking.provision(&server, &usage, &key, "weather"));
    for result in futures::future::join_all(calls).await {
        assert_eq!(code(result), Code::ServerUnavailable);
    }
    mlflow.operations();
    assert!(!tracking.may_ask(&server.url));
    assert_eq!(code(tracking.provision(&server, &usage, &key, "weather").await), Code::ServerUnavailable);
    assert_eq!(mlflow.operations(), Vec::<String>::new());
}
