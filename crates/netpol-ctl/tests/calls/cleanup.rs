//! Enforcement off: what goes, what stays, who may (card §15.5).

use std::time::Duration;

use api_types::enrolment::TargetKind::Deployment;
use controller_kit::{lease::Leadership, retire, scope::Scope};
use netpol_ctl::cleanup::{self, CleanupError, Done};
use serde_json::json;

use crate::stage::{CARDS, FALSE, POLICIES, Stage, TRUE};

const ALL_POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";
const ALL_CARDS: &str = "/apis/agent.kagenti.dev/v1alpha1/agentcards";

/// Two policies of ours, a foreign one with half of the labels, a card with a finalizer of the previous operator.
async fn scene() -> Stage {
    let stage = Stage::new();
    for (name, verdict) in [("w", TRUE), ("v", FALSE)] {
        stage.workload(Deployment, name);
        stage.card(&format!("card-of-{name}"), ("Deployment", name), verdict);
        stage.calls(name).await;
    }
    let finalizers = json!({"metadata": {"finalizers": ["agentcard.kagenti.dev/network-policy"]}});
    stage.card_with("old", ("Deployment", "x"), TRUE, finalizers);
    let labels = json!({"kagenti.dev/policy-type": "identity-verification"});
    stage.put(&format!("{POLICIES}/foreign"), json!({"metadata": {"name": "foreign", "labels": labels}}));
    stage.take_calls();
    stage
}

#[tokio::test]
async fn everything_of_ours_goes_and_nothing_else() {
    let stage = scene().await;
    let clean = async |policies| {
        cleanup::run(&stage.ctx.client, &Scope::Cluster, policies, 1, &Leadership::always()).await
    };
    assert_eq!(clean(true).await.unwrap(), Done { policies: 2, cards: 1 });
    let mut calls = stage.take_calls();
    calls.sort_unstable();
    assert_eq!(
        calls,
        [
            format!("DELETE {POLICIES}/v-signature-policy"),
            format!("DELETE {POLICIES}/w-signature-policy"),
            format!("GET {ALL_CARDS}"),
            format!("GET {ALL_POLICIES}"),
            format!("PATCH {CARDS}/old"),
        ]
    );
    assert_eq!(stage.policies(), ["foreign"]);
    // Again: two lists, no write.
    assert_eq!(clean(true).await.unwrap(), Done::default());
    assert_eq!(stage.take_calls(), [format!("GET {ALL_POLICIES}"), format!("GET {ALL_CARDS}")]);
}

/// `--cleanup-on-disable=false`: policies are not even looked at.
#[tokio::test]
async fn policies_may_stay() {
    let stage = scene().await;
    let done = cleanup::run(&stage.ctx.client, &Scope::Cluster, false, 1, &Leadership::always()).await;
    assert_eq!(done.unwrap(), Done { policies: 0, cards: 1 });
    assert_eq!(stage.policies().len(), 3);
}

/// What changes under way is listed again; what cannot be deleted is named, and the rest is done.
#[tokio::test]
async fn trouble() {
    let stage = scene().await;
    stage.fail("DELETE", &format!("{POLICIES}/v-signature-policy"), 409, "modified");
    let done = cleanup::run(&stage.ctx.client, &Scope::Cluster, true, 1, &Leadership::always()).await;
    assert_eq!(done.unwrap(), Done { policies: 2, cards: 1 });

    let stage = scene().await;
    stage.fail("DELETE", &format!("{POLICIES}/v-signature-policy"), 403, "forbidden");
    let done = cleanup::run(&stage.ctx.client, &Scope::Cluster, true, 1, &Leadership::always()).await;
    let error = done.unwrap_err();
    assert!(error.describe().contains("v-signature-policy"), "{}", error.describe());
    assert!(stage.take_calls().contains(&format!("PATCH {CARDS}/old")), "cards are cleaned nevertheless");

    let stage = scene().await;
    stage.fail("GET", ALL_POLICIES, 403, "networkpolicies is forbidden");
    let done = cleanup::run(&stage.ctx.client, &Scope::Cluster, true, 1, &Leadership::always()).await;
    let text = done.unwrap_err().describe();
    assert!(text.contains("list NetworkPolicies") && text.contains("forbidden"), "{text}");
}

#[tokio::test]
async fn a_follower_deletes_nothing() {
    let stage = scene().await;
    let (_sender, closed) = tokio::sync::watch::channel(false);
    let follower = Leadership::always().with_guard(closed);
    let done = cleanup::run(&stage.ctx.client, &Scope::Cluster, true, 1, &follower).await;
    assert!(matches!(done, Err(CleanupError::NotLeader)));
    assert_eq!(stage.policies().len(), 3);
}

/// The hook takes the Lease from a running controller, and waits until that one has noticed.
#[tokio::test]
async fn the_hook_takes_the_lease() {
    const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/team1/leases/netpol-ctl.kagenti.dev";
    let stage = Stage::new();
    let take = async |wait| {
        retire::take_over(&stage.ctx.client, "team1", "netpol-ctl.kagenti.dev", "netpol-ctl", wait).await
    };
    take(Duration::from_secs(60)).await.unwrap();
    assert_eq!(stage.take_calls(), [format!("GET {LEASE}")], "there is none, nobody runs");
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "netpol-ctl.kagenti.dev"},
        "spec": {"holderIdentity": "netpol-ctl-0", "leaseDurationSeconds": 15, "leaseTransitions": 2}});
    stage.put(LEASE, lease);
    let started = std::time::Instant::now();
    take(Duration::from_millis(10)).await.unwrap();
    assert!(started.elapsed() > Duration::from_secs(1), "it waits for the last writes of the other one");
    let spec = stage.object(LEASE)["spec"].clone();
    assert_eq!(spec["holderIdentity"], retire::HOLDER);
    assert_eq!((&spec["leaseDurationSeconds"], &spec["leaseTransitions"]), (&json!(60), &json!(3)));
    let started = std::time::Instant::now();
    take(Duration::from_secs(60)).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(30), "held by an earlier hook: nobody to wait for");
    assert_eq!(stage.object(LEASE)["spec"]["leaseTransitions"], json!(3), "it did not change hands");
}
