//! Whose name is it: foreign objects, two kinds of one name, names that look alike (card §15.2).

use api_types::enrolment::TargetKind::{Deployment, StatefulSet};
use netpol_ctl::{context::Key, error::Error};
use serde_json::json;

use crate::stage::{FALSE, NONE, POLICIES, Stage, TRUE, lines, waits_long};

const NAME: &str = "w-signature-policy";
const FALLBACK: &str = "w-00000001-signature-policy";

fn path(name: &str) -> String {
    format!("{POLICIES}/{name}")
}

fn foreign(stage: &Stage, name: &str) {
    stage.put(
        &path(name),
        json!({"metadata": {"name": name, "labels": {"mine": "1"}}, "spec": {"ingress": [{}]}}),
    );
}

/// The foreign object is left alone, ours gets the second name and keeps it.
#[tokio::test]
async fn a_foreign_policy_keeps_its_name() {
    let stage = Stage::new();
    foreign(&stage, NAME);
    let before = stage.object(&path(NAME));
    stage.workload(Deployment, "w");
    stage.card("c", ("Deployment", "w"), FALSE);
    let calls = stage.calls("w").await;
    assert_eq!(
        calls,
        [format!("POST {POLICIES}"), format!("GET {}", path(NAME)), format!("POST {POLICIES}")]
    );
    assert_eq!(stage.policies(), [FALLBACK, NAME]);
    stage.card("c", ("Deployment", "w"), TRUE);
    assert_eq!(stage.calls("w").await, [format!("PATCH {}", path(FALLBACK))]);
    assert_eq!(stage.calls("w").await, NONE);
    stage.card("c", ("Deployment", "w"), Some(("False", "NotVerifiedAudit")));
    assert_eq!(stage.calls("w").await, [format!("DELETE {}", path(FALLBACK))]);
    assert_eq!(stage.object(&path(NAME)), before, "untouched");
}

/// Both names are somebody else's: said, retried calmly, nothing is overwritten.
#[tokio::test]
async fn both_names_taken_is_an_error() {
    let stage = Stage::new();
    foreign(&stage, NAME);
    foreign(&stage, FALLBACK);
    stage.workload(Deployment, "w");
    stage.card("c", ("Deployment", "w"), FALSE);
    let (calls, result) = stage.pass(Key::Slot(Stage::slot("w"))).await;
    assert!(
        lines(&calls).iter().all(|line| line.starts_with("POST") || line.starts_with("GET")),
        "{calls:?}"
    );
    let error = result.unwrap_err();
    assert!(matches!(error, Error::NameTaken { .. }) && waits_long(&error));
    assert!(error.to_string().contains(NAME) && error.to_string().contains(FALLBACK), "{error}");
}

/// Ours without its labels is not seen by the watch: it is adopted, not duplicated.
#[tokio::test]
async fn a_policy_whose_labels_were_taken_off_is_repaired() {
    let stage = Stage::new();
    stage.workload(Deployment, "w");
    stage.card("c", ("Deployment", "w"), TRUE);
    stage.calls("w").await;
    stage.change_unseen(&path(NAME), json!({"metadata": {"labels": null}}));
    stage.ctx.index.policies.remove(&controller_kit::watch::Key::new("team1", NAME));
    let calls = stage.calls("w").await;
    assert_eq!(
        calls,
        [format!("POST {POLICIES}"), format!("GET {}", path(NAME)), format!("PATCH {}", path(NAME))]
    );
    assert_eq!(stage.object(&path(NAME))["metadata"]["labels"]["managed-by"], "kagenti-operator");
    assert_eq!(stage.policies(), [NAME]);
}

/// The StatefulSet gives the plain name up, and has its second one before the first is another's.
#[tokio::test]
async fn two_kinds_of_one_name() {
    let stage = Stage::new();
    stage.workload(StatefulSet, "w");
    stage.card("s", ("StatefulSet", "w"), FALSE);
    stage.calls("w").await;
    assert_eq!(stage.policies(), [NAME]);
    stage.workload(Deployment, "w");
    stage.card("d", ("Deployment", "w"), TRUE);
    let calls = stage.calls("w").await;
    assert_eq!(calls, [format!("POST {POLICIES}"), format!("PATCH {}", path(NAME))]);
    let kind = |name: &str| stage.object(&path(name))["spec"]["podSelector"]["matchLabels"]["kind"].clone();
    assert_eq!(kind(NAME), "Deployment");
    assert_eq!(kind("w-statefulset-signature-policy"), "StatefulSet");
    assert_eq!(stage.calls("w").await, NONE);
    // And back.
    stage.remove_card("d");
    let calls = stage.calls("w").await;
    assert_eq!(
        calls,
        [format!("PATCH {}", path(NAME)), format!("DELETE {}", path("w-statefulset-signature-policy"))]
    );
    assert_eq!(kind(NAME), "StatefulSet");
}

/// `w-statefulset` as a name of its own: neither takes the other's policy, whoever came first.
#[tokio::test]
async fn names_that_look_alike() {
    let stage = Stage::new();
    stage.workload(Deployment, "w-statefulset");
    stage.card("other", ("Deployment", "w-statefulset"), TRUE);
    stage.calls("w-statefulset").await;
    stage.workload(Deployment, "w");
    stage.workload(StatefulSet, "w");
    stage.card("d", ("Deployment", "w"), FALSE);
    stage.card("s", ("StatefulSet", "w"), FALSE);
    stage.calls("w").await;
    let policies = stage.policies();
    assert_eq!(policies.len(), 3, "{policies:?}");
    let taken = stage.object(&path("w-statefulset-signature-policy"));
    assert_eq!(taken["metadata"]["ownerReferences"][0]["name"], "other");
    for name in ["w", "w-statefulset"] {
        assert_eq!(stage.calls(name).await, NONE);
    }
    for name in policies {
        assert_eq!(lines(&stage.pass(Stage::policy_key(&name)).await.0), NONE, "{name}");
    }
}

/// Card §5.3, scenario 20: long names.
#[tokio::test]
async fn long_names() {
    let stage = Stage::new();
    for workload in ["w".repeat(63), "v".repeat(253)] {
        stage.workload(Deployment, &workload);
        let card = format!("{workload}-deployment-card");
        stage.card(&card, ("Deployment", &workload), FALSE);
        assert_eq!(stage.calls(&workload).await, [format!("POST {POLICIES}")]);
        assert_eq!(stage.calls(&workload).await, NONE);
    }
    for name in stage.policies() {
        assert!(name.len() <= 253);
        let policy = stage.object(&path(&name));
        let label = policy["metadata"]["labels"]["kagenti.dev/agentcard"].as_str().unwrap();
        assert!(label.len() <= 63, "{label}");
        assert!(policy["metadata"]["annotations"]["kagenti.dev/agentcard-name"].as_str().unwrap().len() > 63);
        assert_eq!(lines(&stage.pass(Stage::policy_key(&name)).await.0), NONE, "{name}");
    }
    // Even a shortened name that nobody wants is recognised as such.
    let gone = "v".repeat(253);
    stage.remove_card(&format!("{gone}-deployment-card"));
    let name = stage.policies().into_iter().find(|name| name.starts_with("vv")).unwrap();
    let calls = lines(&stage.pass(Stage::policy_key(&name)).await.0);
    assert!(calls.last().is_some_and(|call| call.starts_with("DELETE")), "{calls:?}");
}
