//! Card scenario 16, and what a verdict does to a policy (card §15.2, §15.3, §10.2).

use anyhow::{Context as _, Result};
use e2e::{Json as _, Ns, kinds, objects, secs};
use serde_json::{Value, json};

use super::fixture::{
    agent, card, cluster, enforcing, policies, refused, start, until_permissive, until_policies,
    until_restrictive, verdict, verified,
};

fn system() -> Value {
    json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kagenti-system"}}})
}

fn selector(name: &str) -> Value {
    json!({
        "matchLabels": {"app": name},
        "matchExpressions": [{"key": "tier", "operator": "In", "values": ["agents"]}],
    })
}

/// CIDRs and ports of the API server, as its own EndpointSlices tell them.
async fn api_server(default: &Ns) -> Result<(Vec<Value>, Vec<Value>)> {
    let slices = default.list(kinds::ENDPOINT_SLICE, "kubernetes.io/service-name=kubernetes").await?;
    let mut cidrs: Vec<String> = slices
        .iter()
        .flat_map(|slice| slice.items("/endpoints"))
        .flat_map(|endpoint| endpoint.texts("/addresses"))
        .map(|address| format!("{address}/32"))
        .collect();
    cidrs.sort_unstable();
    cidrs.dedup();
    let mut ports: Vec<i64> = slices
        .iter()
        .flat_map(|slice| slice.items("/ports"))
        .filter_map(|port| port.number("/port"))
        .collect();
    ports.push(6443);
    ports.sort_unstable();
    ports.dedup();
    Ok((
        cidrs.into_iter().map(|cidr| json!({"ipBlock": {"cidr": cidr}})).collect(),
        ports.into_iter().map(|port| json!({"protocol": "TCP", "port": port})).collect(),
    ))
}

#[tokio::test]
async fn card_16_policies() -> Result<()> {
    let suite = cluster().await?;
    let netpol = start(&suite, enforcing()).await?;
    let ns = suite.namespace("card-16", json!({})).await?;
    let (cidrs, ports) = api_server(&ns.other("default")).await?;
    assert!(!cidrs.is_empty(), "the API server has an address");

    // Not verified: exactly the object of the chapter.
    ns.create(agent("weather-agent")).await?;
    let created = ns.create(card("weather-agent-deployment-card", "Deployment", "weather-agent")).await?;
    refused(&ns, "weather-agent-deployment-card").await?;
    let name = "weather-agent-signature-policy";
    let policy = until_restrictive(&ns, name).await?;
    assert_eq!(
        policy["metadata"]["labels"],
        json!({
            "managed-by": "kagenti-operator",
            "kagenti.dev/agentcard": "weather-agent-deployment-card",
            "kagenti.dev/policy-type": "identity-verification",
        })
    );
    assert_eq!(
        policy["metadata"]["ownerReferences"],
        json!([{
            "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentCard",
            "name": "weather-agent-deployment-card", "uid": created.uid(),
            "controller": true, "blockOwnerDeletion": true,
        }])
    );
    assert_eq!(
        policy["spec"],
        json!({
            "podSelector": selector("weather-agent"),
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [system()]}],
            "egress": [{"ports": ports, "to": cidrs}],
        })
    );
    let event = ns.until_event(secs(10), "weather-agent-deployment-card", "NetworkPolicyRestrictive").await?;
    assert_eq!((event.text("/type"), event.text("/action")), ("Warning", "EnforcePolicy"));

    // Verified: permissive within 2 s.
    verified(&ns, "weather-agent-deployment-card").await?;
    let policy = ns
        .until(secs(2), kinds::NETWORK_POLICY, name, "the permissive policy", |object| {
            object.pointer("/spec/egress") == Some(&json!([{}]))
        })
        .await?;
    let peer = json!({"podSelector": {"matchLabels": {"agent.kagenti.dev/signature-verified": "true"}}});
    assert_eq!(
        policy["spec"],
        json!({
            "podSelector": selector("weather-agent"),
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [system(), peer]}],
            "egress": [{}],
        })
    );
    let event = ns.until_event(secs(10), "weather-agent-deployment-card", "NetworkPolicyPermissive").await?;
    assert_eq!(event.text("/type"), "Normal");
    // The verified label on the template rolls the Pods; old and new ones stay selected.
    ns.patch(
        kinds::DEPLOYMENT,
        "weather-agent",
        json!({"spec": {"template": {"metadata": {"labels": {"agent.kagenti.dev/signature-verified": "true"}}}}}),
    )
    .await?;
    ns.stays(secs(2), kinds::NETWORK_POLICY, name).await?;

    // The card goes, and the policy with it.
    ns.delete(kinds::AGENT_CARD, "weather-agent-deployment-card").await?;
    ns.gone(secs(15), kinds::NETWORK_POLICY, name).await?;

    // A user's policy of the same name is not touched.
    let foreign = ns
        .create(
            objects::named(kinds::NETWORK_POLICY, "mine-signature-policy")
                .spec(json!({"podSelector": {"matchLabels": {"app": "mine"}}, "policyTypes": ["Ingress"]})),
        )
        .await?;
    ns.create(agent("mine")).await?;
    let created = ns.create(card("mine-card", "Deployment", "mine")).await?;
    refused(&ns, "mine-card").await?;
    let uid: String = created.uid().chars().take(8).collect();
    let fallback = format!("mine-{uid}-signature-policy");
    until_restrictive(&ns, &fallback).await?;
    let event = ns.until_event(secs(10), "mine-card", "PolicyNameConflict").await?;
    assert!(event.text("/note").contains(&fallback), "{}", event.readable());
    verified(&ns, "mine-card").await?;
    until_permissive(&ns, &fallback).await?;
    ns.delete(kinds::AGENT_CARD, "mine-card").await?;
    ns.gone(secs(15), kinds::NETWORK_POLICY, &fallback).await?;
    let after = ns.get(kinds::NETWORK_POLICY, "mine-signature-policy").await?;
    assert_eq!(after.version(), foreign.version(), "untouched");

    let metrics = netpol.metrics_text().await?;
    let endpoints = format!("kagenti_netpol_apiserver_endpoints {}", cidrs.len());
    assert!(metrics.lines().any(|line| line == endpoints), "{metrics}");
    Ok(())
}

/// Card §15.3: no verdict, `Unknown` and every `False` isolate; the audit mode has no effect.
#[tokio::test]
async fn card_15_verdicts() -> Result<()> {
    let suite = cluster().await?;
    let _netpol = start(&suite, enforcing()).await?;
    let ns = suite.namespace("card-15-verdicts", json!({})).await?;
    ns.create(agent("a")).await?;
    ns.create(card("a-card", "Deployment", "a")).await?;
    let name = "a-signature-policy";
    until_restrictive(&ns, name).await.context("no verdict yet")?;
    for (status, reason) in
        [("Unknown", "VerificationStale"), ("Unknown", "Pending"), ("False", "NotVerified")]
    {
        verified(&ns, "a-card").await?;
        until_permissive(&ns, name).await?;
        verdict(&ns, "a-card", status, reason).await?;
        until_restrictive(&ns, name).await.with_context(|| format!("{status}/{reason}"))?;
    }
    // Scenario 9, the part of netpol-ctl.
    verdict(&ns, "a-card", "False", "SignatureInvalidAudit").await?;
    until_policies(&ns, &[]).await?;
    verified(&ns, "a-card").await?;
    until_permissive(&ns, name).await?;
    // Whatever somebody does to it is undone.
    let patch = json!({"metadata": {"labels": {"kagenti.dev/agentcard": "x", "team": "blue"}},
        "spec": {"ingress": [{}]}});
    ns.patch(kinds::NETWORK_POLICY, name, patch).await?;
    let repaired = ns
        .until(secs(5), kinds::NETWORK_POLICY, name, "the repair", |object| {
            object.pointer("/metadata/labels/kagenti.dev~1agentcard") == Some(&json!("a-card"))
        })
        .await?;
    assert_eq!(repaired.text("/metadata/labels/team"), "blue");
    assert_eq!(repaired.items("/spec/ingress/0/from").len(), 2, "{}", repaired.readable());
    // Without the label that the watch selects by it is found again.
    let label = json!({"kagenti.dev/policy-type": null});
    ns.set_labels(kinds::NETWORK_POLICY, name, label).await?;
    ns.until(secs(5), kinds::NETWORK_POLICY, name, "the label", |object| {
        object.text("/metadata/labels/kagenti.dev~1policy-type") == "identity-verification"
    })
    .await?;
    ns.delete(kinds::NETWORK_POLICY, name).await?;
    until_permissive(&ns, name).await.context("a deleted policy comes back")?;
    // A policy that carries our labels and no card wants is surplus.
    let surplus = objects::named(kinds::NETWORK_POLICY, "surplus")
        .label("managed-by", "kagenti-operator")
        .label("kagenti.dev/policy-type", "identity-verification")
        .spec(json!({"podSelector": {}}));
    ns.create(surplus).await?;
    until_policies(&ns, &[name]).await?;
    Ok(())
}

/// Flags that open: allowed namespaces, peers of the cluster, DNS.
#[tokio::test]
async fn card_15_flags() -> Result<()> {
    let suite = cluster().await?;
    let options = enforcing().args([
        "--allow-ingress-namespaces=gateway,monitoring",
        "--verified-peers=cluster",
        "--restrictive-allow-dns",
        "--apiserver-cidrs=192.0.2.1,2001:db8::1/128",
        "--initial-policy-delay=4s",
    ]);
    let _netpol = start(&suite, options).await?;
    let ns = suite.namespace("card-15-flags", json!({})).await?;
    ns.create(agent("a")).await?;
    // Before the card is there: its age counts from the whole second before that.
    let started = std::time::Instant::now();
    ns.create(card("a-card", "Deployment", "a")).await?;
    let restrictive = |object: &Value| object.pointer("/spec/egress") != Some(&json!([{}]));
    let what = "a restrictive policy, after the delay";
    let policy = ns.until(secs(15), kinds::NETWORK_POLICY, "a-signature-policy", what, restrictive).await?;
    assert!(started.elapsed() > secs(2), "isolated after {:?}", started.elapsed());
    let from = json!([
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateway"}}},
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}},
    ]);
    assert_eq!(policy["spec"]["ingress"], json!([{"from": from}]));
    assert_eq!(
        policy["spec"]["egress"][0]["to"],
        json!([{"ipBlock": {"cidr": "192.0.2.1/32"}}, {"ipBlock": {"cidr": "2001:db8::1/128"}}])
    );
    let dns = &policy["spec"]["egress"][1];
    assert_eq!(dns["ports"].as_array().map(Vec::len), Some(4), "{}", policy.readable());
    assert_eq!(dns["to"].as_array().map(Vec::len), Some(2));
    verified(&ns, "a-card").await?;
    let policy = until_permissive(&ns, "a-signature-policy").await?;
    let peer = &policy["spec"]["ingress"][0]["from"][2];
    assert_eq!(peer["namespaceSelector"], json!({}));
    assert_eq!(peer["podSelector"]["matchLabels"]["agent.kagenti.dev/signature-verified"], "true");
    Ok(())
}

/// Card §15.2: the API server's addresses are followed.
#[tokio::test]
async fn card_15_the_api_server_moves() -> Result<()> {
    let suite = cluster().await?;
    let _netpol = start(&suite, enforcing()).await?;
    let ns = suite.namespace("card-15-address", json!({})).await?;
    for name in ["a", "b"] {
        ns.create(agent(name)).await?;
        ns.create(card(&format!("{name}-card"), "Deployment", name)).await?;
        until_restrictive(&ns, &format!("{name}-signature-policy")).await?;
    }
    verified(&ns, "b-card").await?;
    let open = until_permissive(&ns, "b-signature-policy").await?;
    // A second API server, with an address and a port of its own.
    let default = ns.other("default");
    let slice = objects::named(kinds::ENDPOINT_SLICE, "kubernetes-second")
        .label("kubernetes.io/service-name", "kubernetes")
        .with(json!({"addressType": "IPv4", "ports": [{"name": "https", "port": 8443, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["192.0.2.77"], "conditions": {"ready": true}}]}));
    default.create(slice).await?;
    let outcome = async {
        let has = |object: &Value| object.to_string().contains("192.0.2.77/32");
        let what = "the second address";
        let policy = ns.until(secs(8), kinds::NETWORK_POLICY, "a-signature-policy", what, has).await?;
        assert!(policy["spec"]["egress"][0]["ports"].to_string().contains("8443"), "{}", policy.readable());
        Ok::<(), anyhow::Error>(())
    }
    .await;
    default.delete(kinds::ENDPOINT_SLICE, "kubernetes-second").await?;
    outcome?;
    ns.until(secs(8), kinds::NETWORK_POLICY, "a-signature-policy", "the second address to go", |object| {
        !object.to_string().contains("192.0.2.77")
    })
    .await?;
    let after = ns.get(kinds::NETWORK_POLICY, "b-signature-policy").await?;
    assert_eq!(after.version(), open.version(), "a permissive policy does not depend on it");
    assert_eq!(policies(&ns).await?.len(), 2);
    Ok(())
}
