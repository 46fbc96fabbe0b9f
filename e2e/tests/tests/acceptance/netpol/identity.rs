//! Which workload, which card, which name (card §15.2, §15.3, §17.2, scenario 20).

use anyhow::Result;
use e2e::{Json as _, kinds, objects, secs};
use serde_json::json;

use super::fixture::{
    agent, card, cluster, enforcing, labelled, policies, refused, start, until_permissive, until_policies,
    until_restrictive, verified,
};

#[tokio::test]
async fn card_15_re_target_and_label() -> Result<()> {
    let suite = cluster().await?;
    let _netpol = start(&suite, enforcing()).await?;
    let ns = suite.namespace("card-15-target", json!({})).await?;
    for name in ["old", "new"] {
        ns.create(agent(name)).await?;
    }
    ns.create(card("c", "Deployment", "old")).await?;
    verified(&ns, "c").await?;
    until_permissive(&ns, "old-signature-policy").await?;
    let target = json!({"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "new"}});
    ns.set_spec(kinds::AGENT_CARD, "c", target).await?;
    until_policies(&ns, &["new-signature-policy"]).await?;
    // No agent any more, an agent again, gone.
    ns.set_labels(kinds::DEPLOYMENT, "new", json!({"kagenti.io/type": null})).await?;
    until_policies(&ns, &[]).await?;
    ns.set_labels(kinds::DEPLOYMENT, "new", json!({"kagenti.io/type": "agent"})).await?;
    until_policies(&ns, &["new-signature-policy"]).await?;
    ns.delete(kinds::DEPLOYMENT, "new").await?;
    until_policies(&ns, &[]).await?;
    Ok(())
}

/// Card §17.2, scenario 19: AND over all cards, one policy, owned by the older card.
#[tokio::test]
async fn card_19_duplicates_and() -> Result<()> {
    let suite = cluster().await?;
    let _netpol = start(&suite, enforcing()).await?;
    let ns = suite.namespace("card-19-netpol", json!({})).await?;
    ns.create(agent("a")).await?;
    ns.create(card("z-older", "Deployment", "a")).await?;
    tokio::time::sleep(secs(1)).await;
    ns.create(card("a-newer", "Deployment", "a")).await?;
    let name = "a-signature-policy";
    verified(&ns, "z-older").await?;
    refused(&ns, "a-newer").await?;
    let policy = until_restrictive(&ns, name).await?;
    assert_eq!(policies(&ns).await?, [name]);
    assert_eq!(policy.text("/metadata/ownerReferences/0/name"), "z-older");
    verified(&ns, "a-newer").await?;
    until_permissive(&ns, name).await?;
    refused(&ns, "z-older").await?;
    until_restrictive(&ns, name).await?;
    // The owner goes: the policy is the other one's then, whether garbage collection was faster or not.
    ns.delete(kinds::AGENT_CARD, "z-older").await?;
    until_permissive(&ns, name).await?;
    // Garbage collection has had its say by then.
    let after = crate::runtime::at_rest(&ns, secs(3), kinds::NETWORK_POLICY, name).await?;
    assert_eq!(after["spec"]["egress"], json!([{}]));
    assert_eq!(after.items("/metadata/ownerReferences").len(), 1, "{}", after.readable());
    assert_eq!(after.text("/metadata/ownerReferences/0/name"), "a-newer");
    assert_eq!(after.text("/metadata/labels/kagenti.dev~1agentcard"), "a-newer");
    Ok(())
}

/// Card §15.2: Deployment and StatefulSet of one name; Sandboxes; kinds that cannot be looked up.
#[tokio::test]
async fn card_15_kinds() -> Result<()> {
    let suite = cluster().await?;
    let _netpol = start(&suite, enforcing()).await?;
    let ns = suite.namespace("card-15-kinds", json!({})).await?;
    ns.create(labelled(objects::stateful_set("a"))).await?;
    ns.create(card("s", "StatefulSet", "a")).await?;
    until_policies(&ns, &["a-signature-policy"]).await?;
    ns.create(agent("a")).await?;
    ns.create(card("d", "Deployment", "a")).await?;
    verified(&ns, "d").await?;
    until_permissive(&ns, "a-signature-policy").await?;
    let second = until_restrictive(&ns, "a-statefulset-signature-policy").await?;
    assert_eq!(second.text("/metadata/ownerReferences/0/name"), "s");
    ns.delete(kinds::AGENT_CARD, "d").await?;
    let policy = ns
        .until(secs(8), kinds::NETWORK_POLICY, "a-signature-policy", "the StatefulSet's", |object| {
            object.text("/metadata/ownerReferences/0/name") == "s"
        })
        .await?;
    assert_ne!(policy["spec"]["egress"], json!([{}]));
    until_policies(&ns, &["a-signature-policy"]).await?;

    let sandbox = |name: &str| {
        objects::named(kinds::SANDBOX, name)
            .label("kagenti.io/type", "agent")
            .spec(json!({"podTemplate": {"spec": {"containers": [objects::container(8000)]}}}))
    };
    let labels = json!({"app": "box", "agent.kagenti.dev/enrolled": "true"});
    ns.create(sandbox("box").spec(json!({"podTemplate": {"metadata": {"labels": labels}}}))).await?;
    ns.create(sandbox("bare")).await?;
    for name in ["box", "bare"] {
        let target =
            json!({"targetRef": {"apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox", "name": name}});
        ns.create(card(&format!("{name}-card"), "Sandbox", name).spec(target)).await?;
    }
    let policy = until_restrictive(&ns, "box-signature-policy").await?;
    assert_eq!(policy["spec"]["podSelector"], json!({"matchLabels": {"app": "box"}}));
    let policy = until_restrictive(&ns, "bare-signature-policy").await?;
    let convention = json!({"matchLabels": {"app": "bare", "kagenti.io/type": "agent"}});
    assert_eq!(policy["spec"]["podSelector"], convention);
    ns.create(card("daemon-card", "DaemonSet", "daemon")).await?;
    let policy = until_restrictive(&ns, "daemon-signature-policy").await?;
    assert_eq!(policy["spec"]["podSelector"]["matchLabels"]["app"], "daemon");
    Ok(())
}

/// Scenario 20, the part of netpol-ctl: names of 63 characters, no error loop.
#[tokio::test]
async fn card_20_long_names_of_policies() -> Result<()> {
    let suite = cluster().await?;
    let netpol = start(&suite, enforcing()).await?;
    let ns = suite.namespace("card-20-netpol", json!({})).await?;
    let workload = "w".repeat(63);
    let name = format!("{workload}-deployment-card");
    ns.create(agent(&workload)).await?;
    ns.create(card(&name, "Deployment", &workload)).await?;
    verified(&ns, &name).await?;
    let policy = until_permissive(&ns, &format!("{workload}-signature-policy")).await?;
    let label = policy.text("/metadata/labels/kagenti.dev~1agentcard");
    assert_eq!(label.len(), 63, "{label}");
    assert_eq!(policy.text("/metadata/annotations/kagenti.dev~1agentcard-name"), name);
    let metrics = netpol.metrics_text().await?;
    let errors = "controller_runtime_reconcile_errors_total{controller=\"networkpolicy\"} 0";
    assert!(metrics.lines().any(|line| line == errors), "{metrics}");
    Ok(())
}
