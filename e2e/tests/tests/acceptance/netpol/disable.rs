//! Card scenario 17: enforcement off.

use anyhow::{Context as _, Result};
use e2e::group::Alone;
use e2e::{Json as _, Ns, kinds, objects, secs, wait_for};
use local_cluster::{Component, ComponentOptions};
use serde_json::json;

use super::fixture::{
    NETPOL_CTL, agent, card, cluster, enforcing, refused, start, until_policies, until_restrictive, verified,
};

/// Two policies, a foreign one, and cards as the previous operator left them.
async fn scene(suite: &Alone, name: &str) -> Result<Ns> {
    let ns = suite.namespace(name, json!({})).await?;
    let foreign = objects::named(kinds::NETWORK_POLICY, "foreign")
        .label("kagenti.dev/policy-type", "identity-verification")
        .spec(json!({"podSelector": {}}));
    ns.create(foreign).await?;
    for name in ["a", "b"] {
        ns.create(agent(name)).await?;
        ns.create(card(&format!("{name}-card"), "Deployment", name)).await?;
    }
    verified(&ns, "a-card").await?;
    refused(&ns, "b-card").await?;
    let all = ["a-signature-policy", "b-signature-policy", "foreign"];
    until_policies(&ns, &all).await?;
    Ok(ns)
}

/// The previous operator was here while nobody looked.
async fn leave_finalizers(ns: &Ns) -> Result<()> {
    let finalizers = json!(["agentcard.kagenti.dev/network-policy", "example.com/mine"]);
    ns.patch(kinds::AGENT_CARD, "a-card", json!({"metadata": {"finalizers": finalizers}})).await?;
    let finalizers = json!(["agentcard.kagenti.dev/finalizer", "agentcard.kagenti.dev/network-policy"]);
    ns.patch(kinds::AGENT_CARD, "b-card", json!({"metadata": {"finalizers": finalizers}})).await?;
    Ok(())
}

async fn until_clean(ns: &Ns) -> Result<()> {
    until_policies(ns, &["foreign"]).await?;
    ns.until(secs(5), kinds::AGENT_CARD, "a-card", "its own finalizer only", |object| {
        object.texts("/metadata/finalizers") == ["example.com/mine"]
    })
    .await?;
    ns.until(secs(5), kinds::AGENT_CARD, "b-card", "no finalizer", |object| {
        object.items("/metadata/finalizers").is_empty()
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn card_17_disable() -> Result<()> {
    let suite = cluster().await?;
    let netpol = start(&suite, enforcing()).await?;
    let ns = scene(&suite, "card-17-flag").await?;
    netpol.terminate().await?;
    leave_finalizers(&ns).await?;
    // With the flag off and nothing to clean, policies stay; the finalizers go in any case.
    netpol
        .restart_with(&["--enforce-network-policies=false".into(), "--cleanup-on-disable=false".into()])
        .await?;
    netpol.wait_ready(secs(30)).await?;
    ns.until(secs(5), kinds::AGENT_CARD, "b-card", "no finalizer", |object| {
        object.items("/metadata/finalizers").is_empty()
    })
    .await?;
    until_policies(&ns, &["a-signature-policy", "b-signature-policy", "foreign"]).await?;
    netpol.terminate().await?;

    leave_finalizers(&ns).await?;
    netpol.restart_with(&["--enforce-network-policies=false".to_owned()]).await?;
    netpol.wait_ready(secs(30)).await?;
    until_clean(&ns).await?;
    // It idles: nothing is watched, nothing is written.
    let mark = suite.cluster().audit()?.mark()?;
    verified(&ns, "b-card").await?;
    tokio::time::sleep(secs(3)).await;
    let idle = suite.object_writes(mark, NETPOL_CTL)?;
    assert!(idle.is_empty(), "{idle:?}");
    netpol.terminate().await?;

    // Nobody is there any more: cards go at once.
    for name in ["a-card", "b-card"] {
        ns.delete(kinds::AGENT_CARD, name).await?;
    }
    ns.gone(secs(5), kinds::AGENT_CARD, "b-card").await?;
    let rest = ns.get(kinds::AGENT_CARD, "a-card").await?;
    assert_eq!(
        rest.texts("/metadata/finalizers"),
        ["example.com/mine"],
        "a foreign finalizer is not ours to drop"
    );
    Ok(())
}

/// The chart's hook: it runs beside the controller and must win.
#[tokio::test]
async fn card_17_cleanup_and_exit() -> Result<()> {
    let suite = cluster().await?;
    let netpol = start(&suite, enforcing().args(["--leader-elect"])).await?;
    let ns = scene(&suite, "card-17-exit").await?;
    leave_finalizers(&ns).await?;
    // The running controller strips them itself.
    ns.until(secs(5), kinds::AGENT_CARD, "b-card", "no finalizer", |object| {
        object.items("/metadata/finalizers").is_empty()
    })
    .await?;

    let hook = ComponentOptions::new(NETPOL_CTL)
        .instance("netpol-hook")
        .args(["--leader-elect", "--cleanup-and-exit"]);
    let hook = Component::start(suite.cluster(), hook).await?;
    let exit = hook.ended().await?;
    assert_eq!(exit.code, Some(0), "{}", hook.log());
    let exit = netpol.ended().await?;
    assert_eq!(exit.code, Some(1), "the controller lost its Lease: {exit:?}");
    until_clean(&ns).await?;
    // The kubelet would start the controller again: it waits for the Lease, and Helm removes it meanwhile.
    netpol.restart().await?;
    netpol.wait_ready(secs(30)).await?;
    tokio::time::sleep(secs(4)).await;
    until_policies(&ns, &["foreign"]).await?;
    Ok(())
}

/// A right is missing: the hook says which and does not succeed; the controller tries again.
#[tokio::test]
async fn card_17_cleanup_says_what_is_in_the_way() -> Result<()> {
    let suite = cluster().await?;
    let netpol = start(&suite, enforcing()).await?;
    let ns = scene(&suite, "card-17-rights").await?;
    netpol.terminate().await?;
    let options = ComponentOptions::new(NETPOL_CTL)
        .instance("netpol-idle")
        .edit_rights(|rights| assert!(rights.drop_verb("networkpolicies", "delete")));
    let idle = start(&suite, options).await?;
    wait_for(secs(10), "the log to name the right", async || {
        let log = idle.log();
        Ok((log.contains("cannot delete") && log.contains("networkpolicies")).then_some(()))
    })
    .await
    .with_context(|| idle.log())?;
    until_restrictive(&ns, "b-signature-policy").await?;
    // The right is given: it heals without a restart.
    let whole = ComponentOptions::new(NETPOL_CTL).instance("netpol-granted");
    let granted = Component::start(suite.cluster(), whole).await?;
    granted.kill9().await?;
    until_policies(&ns, &["foreign"]).await?;
    Ok(())
}
