//! Agents that flap, and processes that are killed, doubled, or lack a right.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::card_scale::killed_in_mid_sync;
use e2e::{AgentServer, Answer, Json as _, Ns, Suite, kinds, secs, wait_for};
use local_cluster::{Component, ComponentOptions, http};
use serde_json::{Value, json};

use super::bare::{
    Timeline, Verified, auto, bundle, cluster, document, ready_agent, set_bundle, set_ready, verifying,
};
use super::fixture::{CARD_CTL, agent, start};

/// Shortest time between two fetches of an agent that flaps (card-ctl's `READY_AGAIN`), and its period in this test with
/// the shortest jitter.
const FLAPPING: Duration = Duration::from_millis(4_500);

/// A workload that becomes ready and unready ten times a second, and whose card is another one each time.
#[tokio::test]
async fn fault_card_flapping_agent() -> Result<()> {
    let stage = Verified::new("fault-card-flapping", &["--max-sync-period=5s"]).await?;
    let ns = &stage.ns;
    let timeline = Timeline::start(ns).await?;
    let server = stage.agent("echo", document("es256-legacy")).await?;
    stage.until("echo", "Verified", "True/SignatureVerified").await?;
    let marked = |object: &Value| {
        object.template_label("agent.kagenti.dev/signature-verified").is_some()
            && object["metadata"]["annotations"]["agentcard.kagenti.dev/bundle-hash"].is_string()
    };
    ns.until(secs(60), kinds::DEPLOYMENT, "echo", "its marks", marked).await?;
    let flip = std::sync::atomic::AtomicUsize::new(0);
    server.say(move |_| {
        let turn = flip.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut card = document("es256-legacy");
        if turn.is_multiple_of(2) {
            return Answer::status(503);
        }
        card["signatures"][0]["header"] = json!({"turn": turn});
        Answer::json(&card)
    });
    let (mark, before) = (stage.suite.cluster().audit()?.mark()?, server.requests().len());
    let started = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for turn in 0..100 {
        tick.tick().await;
        set_ready(ns, "echo", turn % 2 == 1).await?;
    }
    let fetches = server.requests().len() - before;
    let writes: Vec<_> = stage
        .suite
        .object_writes(mark, CARD_CTL)?
        .into_iter()
        .filter(|write| write.namespace == ns.name())
        .collect();
    // However long the hundred changes took here: one fetch in that time at most, and beside what it told one write
    // that the workload is ready, or is not.
    let took = started.elapsed();
    let times = took.as_millis().div_ceil(FLAPPING.as_millis()) as usize + 1;
    ensure!(fetches <= times, "{fetches} fetches in {took:?}");
    ensure!(writes.len() <= 3 * times, "{} writes in {took:?}: {writes:?}", writes.len());
    let templates = writes.iter().filter(|write| write.resource == "deployments").count();
    assert_eq!(templates, 0, "no Pod is touched: {writes:?}");
    let verdicts = timeline.verdicts(&auto("echo"));
    ensure!(verdicts.last().is_some_and(|last| last == "True/SignatureVerified"), "{verdicts:?}");
    ensure!(!verdicts.iter().any(|verdict| verdict.starts_with("False")), "{verdicts:?}");
    // Once it is calm the status is true again, and a readiness after a while is asked for at once.
    server.say(|_| Answer::json(&document("es256-legacy")));
    let synced = |card: &Value| card.condition("Synced").short() == "True/SyncSucceeded";
    for ready in [false, true] {
        set_ready(ns, "echo", ready).await?;
        let what = format!("ready {ready} to be told");
        ns.until(secs(90), kinds::AGENT_CARD, &auto("echo"), &what, |card| synced(card) == ready)
            .await
            .with_context(|| stage.process.log_tail())?;
    }
    Ok(())
}

/// Killed twice in the middle of a hundred syncs: all are done, each once.
#[tokio::test]
async fn fault_card_killed_in_mid_sync() -> Result<()> {
    let suite = cluster().await?;
    killed_in_mid_sync(&suite, "fault-card-killed", 100).await
}

/// A replica with an identity of its own, so that the audit log tells them apart.
fn replica(namespace: &str, name: &str) -> ComponentOptions {
    let mut options = ComponentOptions::new(CARD_CTL)
        .instance(name)
        .namespaced([namespace])
        .args(["--fetch-dial=endpoints", "--enable-verified-fetch=false"]);
    name.clone_into(&mut options.service_account);
    options
}

/// The replica whose name is in a Lease.
async fn leader(suite: &Suite, replicas: &[Component]) -> Result<usize> {
    let operator = suite.operator().await?;
    wait_for(secs(60), "a leader", async || {
        let leases = operator.list(kinds::LEASE, "").await?;
        let holders: Vec<&str> = leases.iter().map(|lease| lease.text("/spec/holderIdentity")).collect();
        Ok(replicas.iter().position(|replica| holders.contains(&replica.spec().name.as_str())))
    })
    .await
}

/// Two replicas, and the leader dies: the other one goes on, never both.
#[tokio::test]
async fn fault_card_leader_is_killed() -> Result<()> {
    let suite = cluster().await?;
    let ns = suite.namespace("fault-card-leaders", Value::Null).await?;
    set_bundle(&ns, &bundle("spiffe-json")).await?;
    let flags = verifying(ns.name());
    let mut replicas = Vec::new();
    for name in ["card-ctl-leaders-a", "card-ctl-leaders-b"] {
        let options = replica(ns.name(), name).args(flags.iter().map(String::as_str)).args([
            "--leader-elect",
            "--leader-elect-lease-duration=6s",
            "--leader-elect-renew-deadline=4s",
            "--leader-elect-retry-period=1s",
        ]);
        let process = Component::start(suite.cluster(), options).await?;
        process.wait_ready(secs(30)).await?;
        replicas.push(process);
    }
    let mark = suite.cluster().audit()?.mark()?;
    let timeline = Timeline::start(&ns).await?;
    let server = AgentServer::with_card(suite.cluster(), 8000, document("es256-legacy"))?;
    ready_agent(&ns, agent("first"), &server).await?;
    let verified = async |name: &str| {
        let is = |card: &Value| card.condition("Verified").short() == "True/SignatureVerified";
        ns.until(secs(60), kinds::AGENT_CARD, &auto(name), "a verified card", is).await
    };
    let first = verified("first").await?;
    let old = leader(&suite, &replicas).await?;
    // One of the two asks the agent: once per second, give or take a tenth, so six times take this long.
    let (started, before) = (Instant::now(), server.requests().len());
    wait_for(secs(60), "six fetches", async || Ok((server.requests().len() >= before + 6).then_some(())))
        .await?;
    let took = started.elapsed();
    ensure!(took >= Duration::from_millis(5 * 900), "six fetches in {took:?} by two replicas");

    replicas[old].kill9().await?;
    ready_agent(&ns, agent("second"), &server).await?;
    verified("second").await.with_context(|| replicas[1 - old].log_tail())?;
    assert_eq!(leader(&suite, &replicas).await?, 1 - old);
    let writes = |index: usize| -> Result<Vec<String>> {
        let writes = suite.object_writes(mark, &replicas[index].spec().name)?;
        Ok(writes.into_iter().map(|write| write.time).collect())
    };
    let (by_old, by_new) = (writes(old)?, writes(1 - old)?);
    ensure!(!by_old.is_empty() && !by_new.is_empty(), "{by_old:?} {by_new:?}");
    ensure!(by_old.iter().max() < by_new.iter().min(), "two writers: {by_old:?} and {by_new:?}");
    // What was settled is left alone by the new leader.
    let still = ns.get(kinds::AGENT_CARD, &auto("first")).await?;
    assert_eq!(still["status"]["conditions"], first["status"]["conditions"]);
    assert_eq!(still.uid(), first.uid());
    let flips = timeline.verdicts(&auto("first"));
    ensure!(!flips.iter().any(|verdict| verdict.starts_with("False")), "{flips:?}");
    Ok(())
}

/// Starts card-ctl without one of its rights.
async fn without(suite: &Suite, ns: &Ns, resource: &'static str, verb: &'static str) -> Result<Component> {
    let name = format!("card-ctl-no-{verb}-{}", resource.replace('/', "-"));
    let flags = verifying(ns.name());
    let options =
        replica(ns.name(), &name).args(flags.iter().map(String::as_str)).edit_rights(move |rights| {
            assert!(rights.drop_verb(resource, verb), "{verb} {resource} is not among the rights");
        });
    Component::start(suite.cluster(), options).await
}

/// What cannot be seen or written for want of a right is named, with its verb.
#[tokio::test]
async fn fault_card_missing_right_is_named() -> Result<()> {
    let suite = cluster().await?;
    let ns = suite.namespace("fault-card-rights", Value::Null).await?;
    set_bundle(&ns, &bundle("spiffe-json")).await?;
    for resource in ["agentcards", "deployments", "statefulsets", "services"] {
        let process = without(&suite, &ns, resource, "list").await?;
        let refusal = format!("not allowed to list {resource}");
        wait_for(secs(60), &format!("/readyz to say {refusal:?}"), async || {
            let (status, text) = http::get(&format!("{}/readyz?verbose", process.probe_url())).await?;
            let Some(line) = text.lines().find(|line| line.contains(&refusal)) else {
                bail!("{status}: {text}");
            };
            ensure!(status.as_u16() == 503 && line.contains("grant"), "{status}: {line}");
            Ok(Some(()))
        })
        .await
        .with_context(|| process.log_tail())?;
        assert!(process.is_running(), "it waits for the right");
        assert!(ns.list(kinds::AGENT_CARD, "").await?.is_empty());
    }
    let server = AgentServer::with_card(suite.cluster(), 8000, document("es256-legacy"))?;
    ready_agent(&ns, agent("echo"), &server).await?;
    for (resource, verb) in
        [("agentcards", "create"), ("agentcards/status", "patch"), ("deployments", "patch")]
    {
        let process = without(&suite, &ns, resource, verb).await?;
        let named = async || {
            let log = process.log();
            let mut lines = log.lines().filter(|line| line.contains(resource) && line.contains(verb));
            Ok(lines.next().is_some().then_some(()))
        };
        wait_for(secs(60), &format!("the log to name {verb} {resource}"), named)
            .await
            .with_context(|| process.log_tail())?;
        // Said once while it lasts, and not tried without pause: the pauses double from 0.2 s.
        let (mark, started) = (suite.cluster().audit()?.mark()?, Instant::now());
        tokio::time::sleep(secs(3)).await;
        let tries = suite.object_writes(mark, &process.spec().name)?;
        let took = started.elapsed();
        ensure!(tries.len() <= 6 + took.as_secs() as usize / 3, "{verb} {resource} in {took:?}: {tries:?}");
        if (resource, verb) == ("agentcards", "create") {
            assert!(ns.list(kinds::AGENT_CARD, "").await?.is_empty());
            // For the next ones somebody else makes it.
            process.kill9().await?;
            let helper = start(&suite, ns.name(), &["--card-sources=configmap"]).await?;
            ns.until(secs(60), kinds::AGENT_CARD, &auto("echo"), "the card", |_| true).await?;
            helper.kill9().await?;
        }
    }
    Ok(())
}
