//! Restarts, two replicas, the previous operator, missing rights.

use anyhow::{Context as _, Result, ensure};
use e2e::{Json as _, kinds, objects, secs, wait_for};
use local_cluster::{Component, http};
use serde_json::json;

use super::fixture::{
    NETPOL_CTL, agent, card, cluster, enforcing, refused, start, until_permissive, until_restrictive,
    verified,
};

/// README decision 9: steady state and a restart write nothing.
#[tokio::test]
async fn card_15_a_restart_writes_nothing() -> Result<()> {
    let suite = cluster().await?;
    let netpol = start(&suite, enforcing()).await?;
    let ns = suite.namespace("card-15-restart", json!({})).await?;
    for name in ["a", "b", "c"] {
        ns.create(agent(name)).await?;
        ns.create(card(&format!("{name}-card"), "Deployment", name)).await?;
    }
    let foreign =
        objects::named(kinds::NETWORK_POLICY, "d-signature-policy").spec(json!({"podSelector": {}}));
    ns.create(foreign).await?;
    ns.create(agent("d")).await?;
    let created = ns.create(card("d-card", "Deployment", "d")).await?;
    let uid: String = created.uid().chars().take(8).collect();
    verified(&ns, "a-card").await?;
    refused(&ns, "b-card").await?;
    until_permissive(&ns, "a-signature-policy").await?;
    for name in ["b-signature-policy", "c-signature-policy", &format!("d-{uid}-signature-policy")] {
        until_restrictive(&ns, name).await?;
    }
    let mark = suite.cluster().audit()?.mark()?;
    netpol.kill9().await?;
    netpol.restart().await?;
    netpol.wait_ready(secs(30)).await?;
    // What changes nothing for the policy causes no write either.
    let status = json!({"status": {"protocol": "a2a"}});
    ns.patch_status(kinds::AGENT_CARD, "a-card", status).await?;
    ns.annotate(kinds::DEPLOYMENT, "a", json!({"x": "y"})).await?;
    tokio::time::sleep(secs(4)).await;
    let writes = suite.object_writes(mark, NETPOL_CTL)?;
    assert!(writes.is_empty(), "{writes:?}");
    Ok(())
}

#[tokio::test]
async fn card_15_the_leader_of_two_is_killed() -> Result<()> {
    let suite = cluster().await?;
    let replica = async |name: &str| {
        let mut options = enforcing().instance(name).args([
            "--leader-elect",
            "--leader-elect-lease-duration=6s",
            "--leader-elect-renew-deadline=4s",
            "--leader-elect-retry-period=1s",
        ]);
        name.clone_into(&mut options.service_account);
        Component::start(suite.cluster(), options).await
    };
    let replicas = [replica("netpol-a").await?, replica("netpol-b").await?];
    for process in &replicas {
        process.wait_ready(secs(30)).await?;
    }
    let operator = suite.operator().await?;
    let leader = wait_for(secs(20), "a leader", async || {
        let lease = operator.find(kinds::LEASE, "netpol-ctl.kagenti.dev").await?.unwrap_or_default();
        let holder = lease.text("/spec/holderIdentity").to_owned();
        Ok(replicas.iter().position(|process| process.spec().name == holder))
    })
    .await?;
    let ns = suite.namespace("card-15-leaders", json!({})).await?;
    let mark = suite.cluster().audit()?.mark()?;
    ns.create(agent("a")).await?;
    ns.create(card("a-card", "Deployment", "a")).await?;
    until_restrictive(&ns, "a-signature-policy").await?;
    replicas[leader].kill9().await?;
    verified(&ns, "a-card").await?;
    ns.until(secs(20), kinds::NETWORK_POLICY, "a-signature-policy", "the other one", |object| {
        object.pointer("/spec/egress") == Some(&json!([{}]))
    })
    .await
    .context("the other replica takes over")?;
    let times = |index: usize| -> Result<Vec<String>> {
        let name = &replicas[index].spec().name;
        Ok(suite.object_writes(mark, name)?.into_iter().map(|write| write.time).collect())
    };
    let (first, second) = (times(leader)?, times(1 - leader)?);
    ensure!(!first.is_empty() && first.iter().max() < second.iter().min(), "{first:?} and {second:?}");
    Ok(())
}

/// Packaging §12: nothing is written while the previous operator runs.
#[tokio::test]
async fn card_15_the_previous_operator_is_running() -> Result<()> {
    let suite = cluster().await?;
    let operator = suite.operator().await?;
    let renew = async || {
        let lease = objects::named(kinds::LEASE, api_types::names::LEGACY_LEASE).spec(json!({
            "holderIdentity": "old", "leaseDurationSeconds": 6,
            "renewTime": format!("{:.6}", jiff::Timestamp::now()),
        }));
        operator.apply(lease).await
    };
    renew().await?;
    let netpol = Component::start(suite.cluster(), enforcing()).await?;
    let ns = suite.namespace("card-15-legacy", json!({})).await?;
    ns.create(agent("a")).await?;
    let finalizers = json!({"metadata": {"finalizers": ["agentcard.kagenti.dev/network-policy"]}});
    ns.create(card("a-card", "Deployment", "a").with(finalizers)).await?;
    // From when it says why it waits, and longer than the Lease lasts: it is the renewal that counts.
    let readyz = format!("{}/readyz?verbose", netpol.probe_url());
    let mut waits: Option<std::time::Instant> = None;
    wait_for(secs(40), "some time beside the previous operator", async || {
        renew().await?;
        ensure!(ns.find(kinds::NETWORK_POLICY, "a-signature-policy").await?.is_none(), "written beside it");
        let (status, text) = http::get(&readyz).await?;
        ensure!(status.as_u16() == 503 && text.contains(api_types::names::LEGACY_LEASE), "{status}: {text}");
        Ok((waits.get_or_insert_with(std::time::Instant::now).elapsed() >= secs(8)).then_some(()))
    })
    .await?;
    let card = ns.get(kinds::AGENT_CARD, "a-card").await?;
    assert_eq!(card.items("/metadata/finalizers").len(), 1);
    operator.delete(kinds::LEASE, api_types::names::LEGACY_LEASE).await?;
    ns.until(secs(15), kinds::NETWORK_POLICY, "a-signature-policy", "the policy", |_| true).await?;
    ns.until(secs(5), kinds::AGENT_CARD, "a-card", "no finalizer", |object| {
        object.items("/metadata/finalizers").is_empty()
    })
    .await?;
    Ok(())
}

/// A missing right is named and heals; nothing is opened meanwhile.
#[tokio::test]
async fn card_15_missing_rights() -> Result<()> {
    let suite = cluster().await?;
    let ns = suite.namespace("card-15-rights", json!({})).await?;
    ns.create(agent("a")).await?;
    ns.create(card("a-card", "Deployment", "a")).await?;
    let netpol = start(&suite, enforcing()).await?;
    until_restrictive(&ns, "a-signature-policy").await?;
    netpol.terminate().await?;
    let blind = enforcing().instance("netpol-blind").edit_rights(|rights| {
        assert!(rights.drop_resource("deployments"));
        assert!(rights.drop_resource("endpointslices"));
    });
    let blind = Component::start(suite.cluster(), blind).await?;
    let text = wait_for(secs(20), "/readyz to name the rights", async || {
        let (status, text) = http::get(&format!("{}/readyz?verbose", blind.probe_url())).await?;
        let named = text.contains("deployments.apps") && text.contains("endpointslices");
        Ok((status.as_u16() == 503 && named).then_some(text))
    })
    .await?;
    ns.stays(secs(3), kinds::NETWORK_POLICY, "a-signature-policy").await.with_context(|| text)?;
    // Granted: the next process of the component applies the whole rules.
    let whole = Component::start(suite.cluster(), enforcing().instance("netpol-granted")).await?;
    whole.kill9().await?;
    verified(&ns, "a-card").await?;
    ns.until(secs(40), kinds::NETWORK_POLICY, "a-signature-policy", "the verdict to count", |object| {
        object.pointer("/spec/egress") == Some(&json!([{}]))
    })
    .await?;
    blind.wait_ready(secs(40)).await?;
    Ok(())
}
