//! Card scenario 19: several cards for one workload.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use e2e::{AgentServer, Json as _, Ns, Stopwatch, Suite, kinds, objects, secs, wait_for};
use local_cluster::{Component, ComponentOptions};
use serde_json::{Value, json};

use super::bare::{Verified, document, ready_agent};
use super::fixture::{Stage, agent, card, start};

const AUTO: &str = "echo-deployment-card";
const LABEL: &str = "/spec/template/metadata/labels/agent.kagenti.dev~1signature-verified";
const POLICY: &str = "echo-signature-policy";

fn manual(name: &str) -> objects::Object {
    objects::named(kinds::AGENT_CARD, name).spec(json!({
        "syncPeriod": "2s",
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "echo"},
        "identityBinding": {"strict": true},
    }))
}

async fn names(ns: &Ns) -> Result<Vec<String>> {
    let cards = ns.list(kinds::AGENT_CARD, "").await?;
    Ok(cards.iter().map(|card| card.name().to_owned()).collect())
}

async fn until_names(ns: &Ns, wanted: &[&str]) -> Result<()> {
    let what = format!("exactly the cards {wanted:?}");
    ns.until_list(secs(10), kinds::AGENT_CARD, "", &what, |cards| {
        cards.iter().map(e2e::Json::name).eq(wanted.iter().copied())
    })
    .await
    .map(drop)
}

/// A manual card and the automatic one: the manual one stays.
#[tokio::test]
async fn card_19_manual_wins() -> Result<()> {
    let stage = Stage::new("card-19-manual", &["--min-sync-period=1s"]).await?;
    let _server = stage.agent_server("echo", card("echo")).await?;
    stage.ns.create(agent("echo")).await?;
    stage.until(AUTO, "Synced", "True", "SyncSucceeded").await?;
    stage.ns.create(manual("mine")).await?;
    until_names(&stage.ns, &["mine"]).await?;
    let mine = stage.until("mine", "Synced", "True", "SyncSucceeded").await?;
    assert_eq!(mine.items("/metadata/ownerReferences"), [] as [Value; 0], "a user's object is not adopted");
    assert_eq!(mine["metadata"]["labels"], Value::Null);
    // The workload looks again and makes none.
    stage.ns.annotate(kinds::DEPLOYMENT, "echo", json!({"example.com/touched": "1"})).await?;
    stage.ns.holds(secs(4), kinds::AGENT_CARD, "mine", "being there", |_| true).await?;
    assert_eq!(names(&stage.ns).await?, ["mine"]);
    stage.ns.delete(kinds::AGENT_CARD, "mine").await?;
    until_names(&stage.ns, &[AUTO]).await
}

async fn netpol(suite: &Suite, namespace: &str) -> Result<Component> {
    let options = ComponentOptions::new("netpol-ctl")
        .instance(&format!("netpol-ctl-{namespace}"))
        .namespaced([namespace])
        .args(["--enforce-network-policies", "--apiserver-cidrs=192.0.2.1/32"]);
    let process = Component::start(suite.cluster(), options).await?;
    process.wait_ready(secs(30)).await?;
    Ok(process)
}

async fn until_label(ns: &Ns, on: bool) -> Result<()> {
    let what = format!("the label to be {on}");
    // One change of the template per card and minute (card §11.2).
    ns.until(secs(75), kinds::DEPLOYMENT, "echo", &what, |object| {
        (object.pointer(LABEL) == Some(&json!("true"))) == on
    })
    .await
    .map(drop)
}

async fn until_policy(ns: &Ns, permissive: bool) -> Result<Value> {
    let what = format!("a policy that lets everything out: {permissive}");
    ns.until(secs(10), kinds::NETWORK_POLICY, POLICY, &what, |policy| {
        (policy.pointer("/spec/egress") == Some(&json!([{}]))) == permissive
    })
    .await
}

/// Two manual cards: both live from one fetch, the AND of both counts, the older one owns the policy.
#[tokio::test]
async fn card_19_two_manual_cards() -> Result<()> {
    let stage = Verified::new("card-19-two", &["--max-sync-period=2s"]).await?;
    let ns = &stage.ns;
    let older = ns.create(manual("z-older")).await?;
    // Creation times have whole seconds.
    wait_for(secs(5), "the next second", async || {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        Ok((now.as_str() > older.text("/metadata/creationTimestamp")).then_some(()))
    })
    .await?;
    ns.create(manual("a-younger")).await?;
    let server = AgentServer::with_card(stage.suite.cluster(), 8000, document("es256-legacy"))?;
    ready_agent(ns, agent("echo"), &server).await?;
    let verified = async |card: &str, short: &str| {
        let what = format!("Verified {short}");
        ns.until(secs(15), kinds::AGENT_CARD, card, &what, |card| card.condition("Verified").short() == short)
            .await
            .with_context(|| stage.process.log_tail())
    };
    for card in ["z-older", "a-younger"] {
        let seen = verified(card, "True/SignatureVerified").await?;
        assert_eq!(seen.condition("Synced").short(), "True/SyncSucceeded");
        assert_eq!(seen.condition("Bound").short(), "True/Bound");
    }
    until_label(ns, true).await?;

    let process = netpol(&stage.suite, ns.name()).await?;
    let policy = until_policy(ns, true).await.with_context(|| process.log_tail())?;
    let owners: Vec<&str> =
        policy.items("/metadata/ownerReferences").iter().map(|owner| owner.text("/name")).collect();
    assert_eq!(owners, ["z-older"]);

    // One fetch per period, whoever reads it.
    let (before, watch, started) = (server.requests().len(), Stopwatch::start(), Instant::now());
    tokio::time::sleep(secs(12)).await;
    let (fetches, spent, took) = (server.requests().len() - before, watch.spent(), started.elapsed());
    // The period of 2 s, give or take a tenth: no more than fit into the time it took, which may be longer than asked
    // for, and no less than a machine short of CPUs gets done.
    let most = took.as_millis() / 1_800 + 1;
    let least = (spent.as_millis() / 2_200).saturating_sub(1);
    ensure!(
        (least..=most).contains(&(fetches as u128)),
        "{fetches} fetches in {took:?} with a period of 2 s"
    );
    assert_eq!(names(ns).await?, ["a-younger", "z-older"], "no automatic card appears");
    for (card, other) in [("z-older", "a-younger"), ("a-younger", "z-older")] {
        let events = ns.events(card, "DuplicateTarget").await?;
        assert_eq!((events.len(), Ns::occurrences(&events)), (1, 1), "{events:?}");
        ensure!(events.iter().all(|event| event.text("/note").contains(other)), "{events:?}");
    }

    // One of them is refused: no label, no open policy.
    ns.set_spec(kinds::AGENT_CARD, "a-younger", json!({"identityBinding": {"trustDomain": "other.example"}}))
        .await?;
    verified("a-younger", "False/NotVerified").await?;
    until_label(ns, false).await?;
    until_policy(ns, false).await?;
    verified("z-older", "True/SignatureVerified").await?;
    let policies = ns.list(kinds::NETWORK_POLICY, "").await?;
    assert_eq!(policies.iter().map(e2e::Json::name).collect::<Vec<_>>(), [POLICY]);

    // Without the refused one the other decides alone.
    ns.delete(kinds::AGENT_CARD, "a-younger").await?;
    until_policy(ns, true).await.map(drop)
}

/// With the webhook a second card is denied.
#[tokio::test]
async fn card_19_second_card_is_denied() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("card-19-denied", Value::Null).await?;
    let _process = start(&suite, "card-19-denied", &[]).await?;
    ns.create(agent("echo").replicas(0)).await?;
    until_names(&ns, &[AUTO]).await?;
    let message =
        "an AgentCard already targets Deployment echo in namespace card-19-denied: echo-deployment-card";
    let reply = ns.refused(manual("mine")).await?;
    ensure!(reply.message().contains(message), "{}", reply.message());
    let none = objects::named(kinds::AGENT_CARD, "none").spec(json!({"syncPeriod": "30s"}));
    let reply = ns.refused(none).await?;
    ensure!(reply.message().contains("spec.targetRef is required"), "{}", reply.message());
    assert_eq!(names(&ns).await?, [AUTO]);
    Ok(())
}
