//! What the tests of netpol-ctl have in common.

use anyhow::{Context as _, Result};
use e2e::group::Alone;
use e2e::{Group, Json as _, Ns, Options, kinds, objects, poll, secs};
use local_cluster::{ClusterOptions, Component, ComponentOptions};
use serde_json::{Value, json};

/// Package, program, chart, ServiceAccount.
pub(super) const NETPOL_CTL: &str = "netpol-ctl";

/// An API server with the CRDs and the garbage collector; nothing runs in it but what a test starts.
static CLUSTER: Group = Group::new(|| {
    let cluster =
        ClusterOptions { nodes: 0, pod_addresses: false, scheduler: false, ..ClusterOptions::default() };
    Options { cluster, ..Options::default().without_webhook().without_runtime_ctl().fixture("agent-sandbox") }
});

/// The cluster, without cards, policies and leases of the test before.
pub(super) async fn cluster() -> Result<Alone> {
    let suite = CLUSTER.alone().await?;
    let global = suite.global().await?;
    for kind in [kinds::AGENT_CARD, kinds::NETWORK_POLICY] {
        for object in global.list(kind, "").await? {
            let ns = global.other(object.text("/metadata/namespace"));
            if !object.items("/metadata/finalizers").is_empty() {
                ns.try_patch(kind, object.name(), json!({"metadata": {"finalizers": null}})).await?;
            }
            // Garbage collection is at work as well.
            if let Err(error) = ns.delete(kind, object.name()).await
                && ns.find(kind, object.name()).await?.is_some()
            {
                return Err(error);
            }
        }
    }
    // Taken for good by a clean-up, or held by a process that was killed.
    let operator = suite.operator().await?;
    for lease in
        operator.list(kinds::LEASE, "").await?.iter().filter(|lease| lease.name().contains(NETPOL_CTL))
    {
        operator.delete(kinds::LEASE, lease.name()).await?;
    }
    Ok(suite)
}

/// Options of an enforcing netpol-ctl.
pub(super) fn enforcing() -> ComponentOptions {
    ComponentOptions::new(NETPOL_CTL).args(["--enforce-network-policies"])
}

/// Starts a process and waits until it is ready.
pub(super) async fn start(suite: &Alone, options: ComponentOptions) -> Result<Component> {
    let process = Component::start(suite.cluster(), options).await?;
    process.wait_ready(secs(30)).await?;
    Ok(process)
}

/// A Deployment that is an agent; its selector has an expression, too.
pub(super) fn agent(name: &str) -> objects::Object {
    labelled(objects::deployment(name))
}

/// The label of an agent, and a selector with an expression.
pub(super) fn labelled(workload: objects::Object) -> objects::Object {
    workload.label("kagenti.io/type", "agent").template_label("tier", "agents").replicas(0).spec(
        json!({"selector": {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["agents"]}]}}),
    )
}

/// An AgentCard for a workload of group `apps`.
pub(super) fn card(name: &str, kind: &str, workload: &str) -> objects::Object {
    objects::named(kinds::AGENT_CARD, name)
        .spec(json!({"targetRef": {"apiVersion": "apps/v1", "kind": kind, "name": workload}}))
}

/// Writes the verdict, as card-ctl would.
pub(super) async fn verdict(ns: &Ns, card: &str, status: &str, reason: &str) -> Result<Value> {
    let condition = json!({"type": "Verified", "status": status, "reason": reason, "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    ns.patch_status(kinds::AGENT_CARD, card, json!({"status": {"conditions": [condition]}})).await
}

pub(super) async fn verified(ns: &Ns, card: &str) -> Result<Value> {
    verdict(ns, card, "True", "SignatureVerified").await
}

pub(super) async fn refused(ns: &Ns, card: &str) -> Result<Value> {
    verdict(ns, card, "False", "SignatureInvalid").await
}

/// What an egress that lets everything out looks like.
pub(super) fn open() -> Value {
    json!([{}])
}

/// Waits for a policy that is permissive.
pub(super) async fn until_permissive(ns: &Ns, policy: &str) -> Result<Value> {
    ns.until(secs(5), kinds::NETWORK_POLICY, policy, "a permissive policy", |object| {
        object.pointer("/spec/egress") == Some(&open())
    })
    .await
}

/// Waits for a policy that is restrictive.
pub(super) async fn until_restrictive(ns: &Ns, policy: &str) -> Result<Value> {
    ns.until(secs(5), kinds::NETWORK_POLICY, policy, "a restrictive policy", |object| {
        object.pointer("/spec/egress") != Some(&open())
    })
    .await
}

/// Waits until the namespace has exactly these policies.
pub(super) async fn until_policies(ns: &Ns, names: &[&str]) -> Result<()> {
    let mut seen = Vec::new();
    let outcome = poll(secs(8), async || {
        seen = policies(ns).await?;
        Ok((seen == names).then_some(()))
    })
    .await;
    outcome.with_context(|| format!("waited for the policies {names:?}, last seen: {seen:?}"))
}

/// Names of the policies of a namespace, sorted.
pub(super) async fn policies(ns: &Ns) -> Result<Vec<String>> {
    let mut names: Vec<String> =
        ns.list(kinds::NETWORK_POLICY, "").await?.iter().map(|object| object.name().to_owned()).collect();
    names.sort_unstable();
    Ok(names)
}
