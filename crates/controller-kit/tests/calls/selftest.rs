//! The checks of `helm test` against a scripted API server (packaging §15).

use crate::api_server::{Answer, Call, client, failure};
use controller_kit::cli::{self, Cli, Component, Requests};
use controller_kit::commands::CommonCommand;
use controller_kit::selftest::{Selftest, common as checks, lease_is_alive};
use jiff::{SignedDuration, Timestamp};
use rstest::rstest;
use serde_json::{Value, json};

/// A component that is scaled to 0 or hangs fails the check by name.
#[rstest]
#[case("pod-1", 2, Ok("held by pod-1"))]
#[case("", 2, Err("scaled to 0"))]
#[case("pod-1", 60, Err("last renewed 6"))]
#[tokio::test]
async fn a_lease_tells_whether_the_component_lives(
    #[case] holder: &'static str,
    #[case] age: i64,
    #[case] want: Result<&str, &str>,
) {
    let (client, _) = client(move |_| {
        let renewed = Timestamp::now() - SignedDuration::from_secs(age);
        Answer::Json(
            200,
            json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15,
                   "renewTime": format!("{renewed:.6}")}}),
        )
    });
    match (lease_is_alive(&client, "kagenti-system", "l").await, want) {
        (Ok(have), Ok(want)) | (Err(have), Err(want)) => assert!(have.contains(want), "{have}"),
        (have, want) => panic!("{have:?}, not {want:?}"),
    }
}

#[tokio::test]
async fn a_missing_lease_is_named() {
    let (client, _) = client(|_| failure(404, "NotFound"));
    let error = lease_is_alive(&client, "kagenti-system", "l").await.unwrap_err();
    assert!(error.contains("kagenti-system/l"), "{error}");
}

const COMPONENT: Component = Component { name: "x-ctl", about: "Does nothing", requests: Requests::COMMON };

#[derive(Clone, Debug, clap::Args)]
struct Nothing {}

/// The table of the common checks with these flags of `selftest`, and every question about rights: kind, namespace, verb.
async fn table(
    flags: &[&str],
    script: impl Fn(&Call) -> Answer + Send + Sync + 'static,
) -> (String, Vec<(String, String, String)>) {
    let (client, calls) = client(move |call| {
        let version = json!({"major": "1", "minor": "36", "gitVersion": "v1.36.3", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
        if call.path == "/version" { Answer::Json(200, version) } else { script(call) }
    });
    let start = ["x-ctl", "--pod-namespace=ops", "--watch-namespaces=team1", "selftest", "--in-cluster"];
    let args = start.iter().chain(flags).copied();
    let cli: Cli<Nothing, CommonCommand> = cli::try_parse_from(&COMPONENT, args).unwrap();
    let Some(CommonCommand::Selftest(told)) = &cli.command else { panic!("selftest") };
    let mut test = Selftest::new();
    checks(&mut test, &client, &COMPONENT, &cli.common, told).await;
    let asked = |call: &Call| {
        let spec = &call.body["spec"];
        let attributes = &spec["resourceAttributes"];
        let namespace = if attributes.is_null() { &spec["namespace"] } else { &attributes["namespace"] };
        let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (call.path.rsplit('/').next().unwrap().to_owned(), string(namespace), string(&attributes["verb"]))
    };
    let calls = calls.lock().unwrap();
    (test.table(), calls.iter().filter(|call| call.path != "/version").map(asked).collect())
}

fn row<'a>(table: &'a str, check: &str) -> &'a str {
    let is = |line: &&str| line.get(8..).is_some_and(|rest| rest.starts_with(check));
    table.lines().find(is).unwrap_or_else(|| panic!("no {check} in {table}"))
}

fn rule(group: &str, resource: &str, verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": [resource], "verbs": verbs})
}

/// `--expected-rights` with these rules in `team1`.
fn expected(rules: &[Value]) -> String {
    format!(
        "--expected-rights={}",
        json!({"places": [{"namespaces": ["team1"], "rules": rules}], "foreignGroups": []})
    )
}

/// The answer to a SelfSubjectRulesReview: rules in `team1`, none elsewhere.
fn listed(call: &Call, rules: &[Value], incomplete: bool) -> Answer {
    let here = call.body["spec"]["namespace"] == "team1";
    let status = json!({"resourceRules": if here { rules } else { &[] }, "nonResourceRules": [], "incomplete": incomplete,
        "evaluationError": "webhook authorizer does not support user rule resolution"});
    Answer::Json(201, json!({"spec": {}, "status": status}))
}

fn is_list(call: &Call) -> bool {
    call.path.ends_with("/selfsubjectrulesreviews")
}

/// Own namespace, watched namespaces and the whole cluster are looked at; nothing else is asked when all is well.
#[tokio::test]
async fn rights_are_compared_everywhere_that_matters() {
    let rules = [rule("apps", "deployments", &["get", "patch"])];
    let flag = expected(&rules);
    let (table, asked) = table(&[&flag], move |call| listed(call, &rules, false)).await;
    assert_eq!(row(&table, "rights"), "ok      rights      2 rights as expected");
    let places: Vec<&str> = asked.iter().map(|(_, namespace, _)| namespace.as_str()).collect();
    assert_eq!(places, ["kagenti-selftest-nowhere", "ops", "team1"]);
}

/// Without the right to ask about others, what is too much is said to be possibly everybody's.
#[tokio::test]
async fn missing_and_surplus_rights_are_listed() {
    let have = [rule("apps", "deployments", &["get"]), rule("", "secrets", &["list"])];
    let flag = expected(&[rule("apps", "deployments", &["get", "patch"])]);
    let (table, asked) = table(&[&flag], move |call| listed(call, &have, false)).await;
    let said = row(&table, "rights");
    assert!(
        said.starts_with("FAILED  rights      missing in namespace team1: patch deployments.apps. "),
        "{said}"
    );
    assert!(said.contains("more than the chart gives in namespace team1: list secrets. "), "{said}");
    assert!(said.ends_with("(it may be what every account has: this one may not ask)"), "{said}");
    assert_eq!(asked.len(), 3, "{asked:?}");
}

/// Who may review others asks whether an account that nobody knows has the same right.
#[tokio::test]
async fn what_every_account_has_is_no_surplus() {
    let reviews = rule("authorization.k8s.io", "subjectaccessreviews", &["create"]);
    let have = [
        reviews.clone(),
        rule("project.openshift.io", "projects", &["list"]),
        rule("", "secrets", &["list"]),
    ];
    let flag = expected(&[reviews]);
    let (table, asked) = table(&[&flag], move |call| {
        if is_list(call) {
            return listed(call, &have, false);
        }
        assert_eq!(call.body["spec"]["groups"], json!(["system:authenticated", "system:serviceaccounts"]));
        let allowed = call.body["spec"]["resourceAttributes"]["resource"] == "projects";
        Answer::Json(201, json!({"spec": {}, "status": {"allowed": allowed}}))
    })
    .await;
    let said = row(&table, "rights");
    assert!(
        said.contains("in namespace team1: list secrets. Who gives more") && !said.contains("projects"),
        "{said}"
    );
    assert!(said.ends_with("-o wide"), "{said}");
    assert_eq!(asked.iter().filter(|(kind, ..)| kind == "subjectaccessreviews").count(), 2, "{asked:?}");
}

/// An authorizer that cannot list: each right that is not listed is asked for, and that there may be more is said.
#[rstest]
#[case(
    true,
    "ok      rights      2 rights as expected; whether there are more is not known: webhook authorizer"
)]
#[case(
    false,
    "FAILED  rights      missing in namespace team1: patch deployments.apps. There may be more: webhook authorizer"
)]
#[tokio::test]
async fn an_incomplete_list_is_asked_about_one_by_one(#[case] allowed: bool, #[case] want: &str) {
    let flag = expected(&[rule("apps", "deployments", &["get", "patch"])]);
    let have = [rule("apps", "deployments", &["get"])];
    let (table, asked) = table(&[&flag], move |call| {
        if is_list(call) {
            return listed(call, &have, true);
        }
        Answer::Json(201, json!({"spec": {}, "status": {"allowed": allowed}}))
    })
    .await;
    assert!(row(&table, "rights").starts_with(want), "{table}");
    let last = asked.last().unwrap();
    assert_eq!(last, &("selfsubjectaccessreviews".to_owned(), "team1".to_owned(), "patch".to_owned()));
}

#[tokio::test]
async fn a_server_that_does_not_answer_fails_the_check() {
    let flag = expected(&[]);
    let (table, _) = table(&[&flag], |_| failure(403, "Forbidden")).await;
    assert!(row(&table, "rights").starts_with("FAILED  rights      cannot review rights: "), "{table}");
}

/// By hand nobody says what to expect: what is not compared is not said to be well.
#[tokio::test]
async fn what_is_not_told_is_not_checked() {
    let (table, asked) = table(&[], |_| failure(403, "Forbidden")).await;
    assert!(row(&table, "rights").starts_with("-       rights      not compared"), "{table}");
    assert!(row(&table, "replicas").starts_with("-       replicas    not asked"), "{table}");
    assert_eq!(asked, []);
}
