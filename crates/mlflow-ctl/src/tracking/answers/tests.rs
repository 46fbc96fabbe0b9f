use super::*;
use rstest::rstest;
use serde_json::json;

fn base() -> BaseUrl {
    BaseUrl::parse("http://mlflow.mlflow.svc:5000/x").unwrap()
}

fn read_as(operation: Operation, workspace: Option<&str>, status: u16, body: &str) -> Answer {
    let base = base();
    interpret(
        Reply { status, body: body.as_bytes() },
        Sent { operation, base: &base, workspace, token: None },
    )
}

fn code(answer: Answer) -> Option<Code> {
    match answer {
        Answer::Problem(problem) => Some(problem.code),
        _ => None,
    }
}

fn error(code: &str, message: &str) -> String {
    json!({"error_code": code, "message": message, "sqlstate": "x"}).to_string()
}

/// MLflow §5.3: the error code decides whatever the status is.
#[rstest]
#[case("RESOURCE_ALREADY_EXISTS", 400, Answer::AlreadyExists)]
#[case("RESOURCE_ALREADY_EXISTS", 409, Answer::AlreadyExists)]
#[case("RESOURCE_DOES_NOT_EXIST", 404, Answer::Missing)]
#[case("FEATURE_DISABLED", 500, Answer::FeatureDisabled)]
fn error_codes_come_first(#[case] word: &str, #[case] status: u16, #[case] want: Answer) {
    assert_eq!(read_as(Operation::LookUp, None, status, &error(word, "no")), want);
}

#[rstest]
#[case::parameter(400, error("INVALID_PARAMETER_VALUE", "x"), Code::InvalidRequest)]
#[case::bad_request(400, error("BAD_REQUEST", "x"), Code::InvalidRequest)]
#[case::unauthenticated(400, error("UNAUTHENTICATED", "x"), Code::Unauthenticated)]
#[case::basic(401, "You are not authenticated.".into(), Code::Unauthenticated)]
#[case::login(302, "<html>".into(), Code::Unauthenticated)]
#[case::denied(403, error("PERMISSION_DENIED", "x"), Code::PermissionDenied)]
#[case::denied_text(403, "Permission denied".into(), Code::PermissionDenied)]
#[case::host(403, "Invalid Host header - possible DNS rebinding attack detected".into(), Code::HostRejected)]
#[case::limit(400, error("REQUEST_LIMIT_EXCEEDED", "x"), Code::Throttled)]
#[case::exhausted(429, error("RESOURCE_EXHAUSTED", "x"), Code::Throttled)]
#[case::too_many(429, String::new(), Code::Throttled)]
#[case::unavailable(503, error("TEMPORARILY_UNAVAILABLE", "x"), Code::ServerUnavailable)]
#[case::artifacts(503, "Endpoint disabled due to the mlflow server running in `--artifacts-only` mode.".into(), Code::NotATrackingServer)]
#[case::internal(500, error("INTERNAL_ERROR", "x"), Code::ServerUnavailable)]
#[case::gateway(502, "<html>bad gateway</html>".into(), Code::ServerUnavailable)]
#[case::no_route(404, "<html>not found</html>".into(), Code::UnexpectedResponse)]
#[case::other_server(404, r#"{"detail":"Not Found"}"#.into(), Code::UnexpectedResponse)]
#[case::method(405, String::new(), Code::UnexpectedResponse)]
#[case::gone(404, error("ENDPOINT_NOT_FOUND", "x"), Code::RequestRejected)]
#[case::teapot(418, String::new(), Code::RequestRejected)]
#[case::no_json_type(400, "Bad Request. Content-Type header must be application/json.".into(), Code::RequestRejected)]
#[case::login_page(200, "<html>sign in</html>".into(), Code::UnexpectedResponse)]
fn problems(#[case] status: u16, #[case] body: String, #[case] want: Code) {
    assert_eq!(code(read_as(Operation::Create, None, status, &body)), Some(want));
}

/// A missing workspace is not a missing experiment: nothing is made anew because of it.
#[rstest]
#[case::look_up(Operation::Verify, Some("team1"), "Workspace 'team1' not found", true)]
#[case::create_with_other_text(Operation::Create, Some("team1"), "No such thing", true)]
#[case::an_experiment(Operation::Verify, Some("team1"), "No Experiment with id=3 exists", false)]
#[case::without_header(Operation::Verify, None, "Workspace 'team1' not found", false)]
fn missing_workspaces(
    #[case] operation: Operation,
    #[case] workspace: Option<&str>,
    #[case] message: &str,
    #[case] want: bool,
) {
    let answer = read_as(operation, workspace, 404, &error("RESOURCE_DOES_NOT_EXIST", message));
    assert_eq!(code(answer.clone()) == Some(Code::WorkspaceNotFound), want);
    assert_eq!(answer == Answer::Missing, !want);
}

/// MLflow §5.3: the message gives the Host value we sent, with the port.
#[test]
fn a_rejected_host_is_named_with_its_port() {
    let answer = read_as(Operation::Create, None, 403, "Invalid Host header - x");
    let Answer::Problem(problem) = answer else { panic!("{answer:?}") };
    assert!(problem.message.contains("mlflow.mlflow.svc:5000\""), "{}", problem.message);
    assert!(
        problem.message.contains("--allowed-hosts")
            && problem.message.contains("MLFLOW_SERVER_ALLOWED_HOSTS")
    );
}

#[test]
fn a_wrong_path_is_named() {
    let answer = read_as(Operation::Create, None, 404, "<html>");
    let Answer::Problem(problem) = answer else { panic!("{answer:?}") };
    assert!(problem.message.contains("http://mlflow.mlflow.svc:5000/x"), "{}", problem.message);
    assert!(problem.message.contains("/api/2.0/mlflow/experiments/create"), "{}", problem.message);
}

/// Foreign text is bounded.
#[test]
fn long_texts_are_cut() {
    let answer = read_as(Operation::Create, None, 400, &error("INVALID_PARAMETER_VALUE", &"é".repeat(5000)));
    let Answer::Problem(problem) = answer else { panic!("{answer:?}") };
    assert!(problem.message.chars().filter(|c| *c == 'é').count() <= QUOTED);
}

/// A server that says what it was sent does not get the token into a condition, also when the cut would go through it.
#[rstest]
#[case::json(400, error("SOMETHING", "you sent Bearer TOKEN, thanks"))]
#[case::text(403, "you sent Bearer TOKEN, thanks".into())]
#[case::at_the_cut(403, format!("{} Bearer TOKEN, thanks", "x".repeat(240)))]
fn a_token_is_not_repeated(#[case] status: u16, #[case] body: String) {
    let token = Secret::from("eyJhbGciOi".repeat(200).as_str());
    let (base, body) = (base(), body.replace("TOKEN", token.expose()));
    let sent = Sent { operation: Operation::Create, base: &base, workspace: None, token: Some(&token) };
    let answer = interpret(Reply { status, body: body.as_bytes() }, sent);
    let Answer::Problem(problem) = answer else { panic!("{answer:?}") };
    assert!(!problem.message.contains("eyJ"), "{}", problem.message);
    assert!(problem.message.contains("Bearer"), "{}", problem.message);
}

/// MLflow §10: requests are counted by error code, from a closed set.
#[rstest]
#[case(400, error("RESOURCE_ALREADY_EXISTS", "x"), Some("RESOURCE_ALREADY_EXISTS"))]
#[case(500, error("FEATURE_DISABLED", "x"), Some("FEATURE_DISABLED"))]
#[case(400, error("MADE_UP", "x"), None)]
#[case(503, String::new(), None)]
#[case(200, error("PERMISSION_DENIED", "x"), None)]
fn answers_are_counted(#[case] status: u16, #[case] body: String, #[case] want: Option<&str>) {
    assert_eq!(error_code(Reply { status, body: body.as_bytes() }), want);
}

/// Scenario 9 and 10: what is repeated within one call.
#[rstest]
#[case(503, String::new(), true)]
#[case(500, error("INTERNAL_ERROR", "x"), true)]
#[case(429, String::new(), true)]
#[case(400, error("RESOURCE_EXHAUSTED", "x"), true)]
#[case(500, error("FEATURE_DISABLED", "x"), false)]
#[case(503, "--artifacts-only".into(), false)]
#[case(400, error("INVALID_PARAMETER_VALUE", "x"), false)]
#[case(400, error("RESOURCE_ALREADY_EXISTS", "x"), false)]
#[case(404, error("RESOURCE_DOES_NOT_EXIST", "x"), false)]
#[case(401, String::new(), false)]
#[case(302, String::new(), false)]
#[case(200, "<html>".into(), false)]
#[case(200, "{}".into(), false)]
fn repetitions(#[case] status: u16, #[case] body: String, #[case] want: bool) {
    assert_eq!(is_transient(Reply { status, body: body.as_bytes() }), want);
}

#[rstest]
#[case(json!({"experiment_id": "12"}), Some("12"))]
#[case(json!({"experiment_id": ""}), None)]
#[case(json!({"experiment_id": 12}), None)]
#[case(json!({"experiment_id": "1 2"}), None)]
#[case(json!({"experiment_id": "1".repeat(65)}), None)]
#[case(json!({}), None)]
#[case(Value::Null, None)]
#[case(json!([]), None)]
fn ids(#[case] body: Value, #[case] want: Option<&str>) {
    let base = base();
    let sent = Sent { operation: Operation::Create, base: &base, workspace: None, token: None };
    let got = created(&body, sent);
    assert_eq!(got.as_deref().ok(), want);
    assert!(got.is_ok() || got.unwrap_err().code == Code::UnexpectedResponse);
}

#[test]
fn experiments_are_read() {
    let base = base();
    let sent = Sent { operation: Operation::LookUp, base: &base, workspace: None, token: None };
    let read = |shown: Value| experiment(&json!({ "experiment": shown }), sent);
    let full = json!({"experiment_id": "7", "name": "a", "lifecycle_stage": "deleted",
        "tags": [{"key": "x", "value": "y"}, {"key": "kagenti.io/namespace", "value": "team1"}]});
    let found = read(full).unwrap();
    assert_eq!((found.id.as_str(), found.deleted, found.namespace.as_deref()), ("7", true, Some("team1")));
    let untagged = read(json!({"experiment_id": "7", "name": "a"})).unwrap();
    assert_eq!((untagged.deleted, untagged.namespace), (false, None));
    read(json!({"experiment_id": "7", "name": "a", "lifecycle_stage": "purged"})).unwrap_err();
    read(json!({"name": "a"})).unwrap_err();
}
