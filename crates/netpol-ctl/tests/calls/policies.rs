//! One policy per workload: card §15.2, §15.3, §15.5.

use std::time::Duration;

use api_types::enrolment::TargetKind::{Deployment, StatefulSet};
use netpol_ctl::{context::Key, settings::Settings};
use serde_json::json;

use crate::stage::{AUDIT, CARDS, DEPLOYMENTS, FALSE, NONE, POLICIES, Stage, TRUE, lines};

const W: (&str, &str) = ("Deployment", "w");
const NAME: &str = "w-signature-policy";

fn path(name: &str) -> String {
    format!("{POLICIES}/{name}")
}

/// One request makes a policy, one follows a verdict, none is sent when nothing differs.
#[tokio::test]
async fn one_call_per_change_and_then_none() {
    let stage = Stage::new();
    stage.workload(Deployment, "w");
    stage.card("c", W, FALSE);
    assert_eq!(stage.calls("w").await, [format!("POST {POLICIES}")]);
    let policy = stage.object(&path(NAME));
    assert_eq!(
        policy["metadata"]["labels"],
        json!({"managed-by": "kagenti-operator", "kagenti.dev/agentcard": "c",
            "kagenti.dev/policy-type": "identity-verification"})
    );
    assert_eq!(policy["metadata"]["annotations"], json!({"kagenti.dev/agentcard-name": "c"}));
    assert_eq!(
        policy["metadata"]["ownerReferences"],
        json!([{"apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentCard", "name": "c", "uid": "00000001-c",
            "controller": true, "blockOwnerDeletion": true}])
    );
    assert_eq!(policy["spec"]["podSelector"], json!({"matchLabels": {"app": "w", "kind": "Deployment"}}));
    assert_eq!(policy["spec"]["egress"][0]["to"], json!([{"ipBlock": {"cidr": "10.0.0.1/32"}}]));
    assert_eq!(stage.calls("w").await, NONE);

    stage.card("c", W, TRUE);
    assert_eq!(stage.calls("w").await, [format!("PATCH {}", path(NAME))]);
    let after = stage.object(&path(NAME));
    assert_eq!(after["spec"]["egress"], json!([{}]));
    assert_eq!(after["spec"]["podSelector"], policy["spec"]["podSelector"]);
    assert_eq!(stage.calls("w").await, NONE);
}

/// README decision 9: steady state and a restart write nothing, also when the policy has its second name.
#[tokio::test]
async fn a_restart_writes_nothing() {
    let stage = Stage::new();
    stage.put(&path("x-signature-policy"), json!({"metadata": {"name": "x-signature-policy"}}));
    for (name, verdict) in [("w", TRUE), ("v", FALSE), ("u", None), ("x", FALSE)] {
        stage.workload(Deployment, name);
        stage.card(&format!("card-of-{name}"), ("Deployment", name), verdict);
        stage.calls(name).await;
    }
    assert_eq!(stage.policies().len(), 5);
    let again = stage.restarted();
    for name in ["w", "v", "u", "x"] {
        again.workload(Deployment, name);
        assert_eq!(again.calls(name).await, NONE);
    }
    for name in stage.policies() {
        assert_eq!(lines(&again.pass(Stage::policy_key(&name)).await.0), NONE);
    }
}

/// Card §10.2: an audited verdict has no effect on traffic.
#[tokio::test]
async fn audit_means_no_policy() {
    let stage = Stage::new();
    stage.workload(Deployment, "w");
    stage.card("c", W, AUDIT);
    assert_eq!(stage.calls("w").await, NONE);
    stage.card("c", W, FALSE);
    stage.calls("w").await;
    stage.card("c", W, AUDIT);
    assert_eq!(stage.calls("w").await, [format!("DELETE {}", path(NAME))]);
    assert_eq!(stage.calls("w").await, NONE);
}

/// Card §17.2: AND over all cards, one policy, owned by the winner.
#[tokio::test]
async fn duplicates_are_and() {
    let stage = Stage::new();
    stage.workload(Deployment, "w");
    let auto = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "kagenti-operator"}}});
    stage.card_with("a-auto", W, TRUE, auto);
    stage.card("b", W, FALSE);
    stage.calls("w").await;
    assert_eq!(stage.policies(), [NAME]);
    assert_eq!(stage.object(&path(NAME))["metadata"]["ownerReferences"][0]["name"], "b", "manual wins");
    assert_ne!(stage.object(&path(NAME))["spec"]["egress"], json!([{}]));
    stage.card("b", W, TRUE);
    stage.calls("w").await;
    assert_eq!(stage.object(&path(NAME))["spec"]["egress"], json!([{}]));
    // The owner goes; the other one takes the policy over in place.
    stage.remove_card("b");
    assert_eq!(stage.calls("w").await, [format!("PATCH {}", path(NAME))]);
    assert_eq!(stage.object(&path(NAME))["metadata"]["ownerReferences"][0]["name"], "a-auto");
}

/// Card §15.5: the policy of the old workload goes, that of the new one comes.
#[tokio::test]
async fn a_re_target_moves_the_policy() {
    let stage = Stage::new();
    stage.workload(Deployment, "w");
    stage.workload(Deployment, "v");
    stage.card("c", W, TRUE);
    stage.calls("w").await;
    stage.card("c", ("Deployment", "v"), FALSE);
    let calls = stage.calls("v").await;
    assert_eq!(calls, [format!("POST {POLICIES}"), format!("DELETE {}", path(NAME))]);
    assert_eq!(stage.calls("w").await, NONE);
    assert_eq!(stage.policies(), ["v-signature-policy"]);
}

/// The old workload has another card: the re-targeted one takes nothing with it.
#[tokio::test]
async fn a_re_target_leaves_what_another_card_wants() {
    let stage = Stage::new();
    stage.workload(Deployment, "w");
    stage.workload(Deployment, "v");
    stage.card("a", W, TRUE);
    stage.card("b", W, TRUE);
    stage.calls("w").await;
    stage.card("a", ("Deployment", "v"), TRUE);
    assert_eq!(stage.calls("v").await, [format!("POST {POLICIES}")]);
    assert_eq!(stage.calls("w").await, [format!("PATCH {}", path(NAME))]);
    assert_eq!(stage.policies(), ["v-signature-policy", NAME]);
}

/// Card §15.3: the workload is gone, or no agent any more. It is read once before the policy goes.
#[tokio::test]
async fn no_agent_no_policy() {
    let stage = Stage::new();
    stage.workload(Deployment, "w");
    stage.card("c", W, TRUE);
    stage.calls("w").await;
    stage.remove_workload(Deployment, "w");
    let unlabelled = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "w"}});
    stage.put(&format!("{DEPLOYMENTS}/w"), unlabelled);
    let calls = stage.calls("w").await;
    assert_eq!(calls, [format!("GET {DEPLOYMENTS}/w"), format!("DELETE {}", path(NAME))]);
    assert_eq!(stage.calls("w").await, NONE);
}

/// The watch of the workloads may be behind: nothing is opened by mistake.
#[tokio::test]
async fn a_workload_that_exists_after_all_keeps_its_policy() {
    let stage = Stage::new();
    stage.workload(Deployment, "w");
    stage.card("c", W, FALSE);
    stage.calls("w").await;
    stage.remove_workload(Deployment, "w");
    stage.put(
        &format!("{DEPLOYMENTS}/w"),
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "w", "labels": {"kagenti.io/type": "agent"}}}),
    );
    let (calls, result) = stage.pass(Key::Slot(Stage::slot("w"))).await;
    assert_eq!(lines(&calls), [format!("GET {DEPLOYMENTS}/w")]);
    assert!(result.is_err());
    assert_eq!(stage.policies(), [NAME]);
}

/// Card §15.5, prune rule: whatever no card wants is deleted, whatever a card wants is kept.
#[tokio::test]
async fn surplus_policies_go() {
    let stage = Stage::new();
    stage.workload(Deployment, "w");
    stage.card("c", W, TRUE);
    stage.calls("w").await;
    let labels =
        json!({"managed-by": "kagenti-operator", "kagenti.dev/policy-type": "identity-verification"});
    stage.policy("orphan", json!({"metadata": {"labels": labels}, "spec": {}}));
    let (calls, result) = stage.pass(Stage::policy_key("orphan")).await;
    assert_eq!(lines(&calls), [format!("DELETE {}", path("orphan"))]);
    assert_eq!(calls[0].body["preconditions"]["uid"].as_str().map(str::is_empty), Some(false));
    assert_eq!(result.unwrap(), None);
    let wanted = stage.pass(Stage::policy_key(NAME)).await;
    assert_eq!(lines(&wanted.0), NONE);
    // Half of the labels is not ours.
    let half = json!({"kagenti.dev/policy-type": "identity-verification"});
    stage.policy("half", json!({"metadata": {"labels": half}, "spec": {}}));
    assert_eq!(lines(&stage.pass(Stage::policy_key("half")).await.0), NONE);
}

/// A card that the index does not know is read before its policy goes.
#[tokio::test]
async fn a_card_that_exists_after_all_keeps_its_policy() {
    let stage = Stage::new();
    stage.workload(Deployment, "w");
    stage.card("c", W, FALSE);
    stage.calls("w").await;
    stage.forget_card("c");
    let (calls, result) = stage.pass(Stage::policy_key(NAME)).await;
    assert_eq!(lines(&calls), [format!("GET {CARDS}/c")]);
    assert!(result.is_err());
    stage.remove_card("c");
    let (calls, _) = stage.pass(Stage::policy_key(NAME)).await;
    assert_eq!(lines(&calls), [format!("GET {CARDS}/c"), format!("DELETE {}", path(NAME))]);
}

/// Card §15.3: `--initial-policy-delay` counts from the card's creation.
#[tokio::test]
async fn the_initial_delay() {
    let settings = Settings { initial_policy_delay: Duration::from_secs(30), ..Settings::default() };
    let stage = Stage::with(settings);
    stage.workload(Deployment, "w");
    stage.card("c", W, None);
    let (calls, result) = stage.pass(Key::Slot(Stage::slot("w"))).await;
    assert_eq!(lines(&calls), NONE);
    assert_eq!(result.unwrap(), Some(Duration::from_secs(30)));
    stage.card("c", W, FALSE);
    assert_eq!(stage.calls("w").await, [format!("POST {POLICIES}")]);
    stage.card("c", W, None);
    assert_eq!(stage.calls("w").await, NONE, "the delay never opens");
}

/// Card §15.5: exactly the finalizers of the previous operator, from terminating cards too.
#[tokio::test]
async fn legacy_finalizers_are_stripped() {
    let stage = Stage::new();
    let metadata = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers":
        ["mine", "agentcard.kagenti.dev/network-policy", "agentcard.kagenti.dev/finalizer"]}});
    stage.card_with("c", W, TRUE, metadata);
    let key = Key::Card(controller_kit::watch::Key::new("team1", "c"));
    let (calls, _) = stage.pass(key.clone()).await;
    assert_eq!(lines(&calls), [format!("PATCH {CARDS}/c")]);
    assert_eq!(calls[0].body["metadata"]["finalizers"], json!(["mine"]));
    assert!(calls[0].body["metadata"]["resourceVersion"].is_string());
    assert_eq!(stage.object(&format!("{CARDS}/c"))["metadata"]["finalizers"], json!(["mine"]));
}

/// What somebody changed is repaired; what is theirs stays.
#[tokio::test]
async fn drift_is_repaired() {
    let stage = Stage::new();
    stage.workload(StatefulSet, "w");
    stage.card("c", ("StatefulSet", "w"), TRUE);
    stage.calls("w").await;
    let mut edited = stage.object(&path(NAME));
    edited["spec"] = json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]});
    edited["metadata"]["labels"]["kagenti.dev/agentcard"] = json!("other");
    edited["metadata"]["labels"]["team"] = json!("blue");
    stage.policy(NAME, edited);
    assert_eq!(stage.calls("w").await, [format!("PATCH {}", path(NAME))]);
    let repaired = stage.object(&path(NAME));
    assert_eq!(repaired["metadata"]["labels"]["team"], "blue");
    assert_eq!(repaired["metadata"]["labels"]["kagenti.dev/agentcard"], "c");
    assert_eq!(repaired["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
}
