//! OpenShift (§12.3, §17), with the objects that a cluster of it has; and two flags of §19.1 on the way.

use anyhow::Result;
use api_types::names::{MANAGED_BY_OPERATOR, annotation, condition, label};
use e2e::{Json as _, Options, Suite, kinds, objects, suite};
use serde_json::{Value, json};

use super::{ROLLOUT, WITHIN, enrolled, revision, settled};

const SCC_ROLE: &str = "system:openshift:scc:kagenti-authbridge";

fn binding(role: &str, group: &str) -> objects::Object {
    objects::named(kinds::ROLE_BINDING, "agent-authbridge-scc").with(json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
    }))
}

#[tokio::test]
async fn runtime_rule_openshift() -> Result<()> {
    let role = objects::named(kinds::CLUSTER_ROLE, SCC_ROLE).with(json!({"rules": [{
        "apiGroups": ["security.openshift.io"],
        "resources": ["securitycontextconstraints"],
        "resourceNames": ["kagenti-authbridge"],
        "verbs": ["use"],
    }]}));
    let network = objects::named(kinds::NETWORK, "cluster").spec(json!({"defaultNetwork": {
        "type": "OVNKubernetes",
        "ovnKubernetesConfig": {"gatewayConfig": {"routingViaHost": false}},
    }}));
    let runtime_ctl = suite::runtime_ctl().args(["--enable-istio-mesh=false", "--rollout-on-spec-change"]);
    let options = Options::default()
        .without_webhook()
        .object("", role)
        .object("", objects::open_crd(kinds::NETWORK))
        .object("", network)
        .runtime_ctl([runtime_ctl]);
    let suite = Suite::own(options).await?;
    let ns = suite.namespace("agents", Value::Null).await?;
    let before = enrolled(&ns, "bound").await?;
    let made = ns.until(WITHIN, kinds::ROLE_BINDING, "agent-authbridge-scc", "the binding", |_| true).await?;
    let wanted = binding(SCC_ROLE, "system:serviceaccounts:agents").build();
    assert_eq!(made["roleRef"], wanted["roleRef"]);
    assert_eq!(made["subjects"], wanted["subjects"]);
    assert_eq!(made.label(label::MANAGED_BY), Some(MANAGED_BY_OPERATOR));

    // Another one of that name is somebody's decision.
    let other = suite.namespace("decided", Value::Null).await?;
    other.create(binding(SCC_ROLE, "system:serviceaccounts")).await?;
    enrolled(&other, "kept").await?;
    let kept = other.get(kinds::ROLE_BINDING, "agent-authbridge-scc").await?;
    assert_eq!(kept.text("/subjects/0/name"), "system:serviceaccounts");

    // §17: the node's own routing would bypass the mesh, and somebody must hear of it.
    let metrics = suite.runtime_ctl(0)?.metrics_text().await?;
    assert!(metrics.lines().any(|line| line == "kagenti_ovn_routing_via_host 0"), "the gauge");
    assert!(suite.runtime_ctl(0)?.log().contains("routingViaHost"), "the log names the setting");

    // --enable-istio-mesh=false
    let namespace = suite.global().await?.get(kinds::NAMESPACE, "agents").await?;
    assert_eq!(namespace.label(label::ISTIO_DATAPLANE_MODE), None);
    let runtime = ns.get(kinds::AGENT_RUNTIME, "bound").await?;
    assert_eq!(runtime.condition(condition::ISTIO_MESH_ENROLLED).status, "");

    // --rollout-on-spec-change
    let hash = before.template_annotation(annotation::RUNTIME_GENERATION).unwrap_or_default().to_owned();
    assert!(hash.len() == 16 && hash.chars().all(|c| c.is_ascii_hexdigit()), "{hash:?}");
    ns.set_spec(kinds::AGENT_RUNTIME, "bound", json!({"egressEnforcement": "none"})).await?;
    ns.until(WITHIN, kinds::DEPLOYMENT, "bound", "another runtime-generation", |deployment| {
        deployment.template_annotation(annotation::RUNTIME_GENERATION).is_some_and(|now| now != hash)
    })
    .await?;
    let after = settled(&ns, kinds::DEPLOYMENT, "bound").await?;
    assert_eq!(revision(&after)?, revision(&before)? + 1, "one rollout");
    ns.delete(kinds::AGENT_RUNTIME, "bound").await?;
    ns.gone(WITHIN, kinds::AGENT_RUNTIME, "bound").await?;
    let left = ns.rolled_out(ROLLOUT, kinds::DEPLOYMENT, "bound").await?;
    assert_eq!(left.template_annotation(annotation::RUNTIME_GENERATION), None);
    Ok(())
}
