//! Card scenario 23 in short: 200 cards instead of 2 000, a period of 4 s instead of 30 s, 24 s instead of 3 min.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::{AgentServer, Json as _, Ns, kinds, secs, wait_for};
use local_cluster::{Component, ComponentOptions};
use serde_json::Value;

use super::bare::{cluster, ready_agents};
use super::fixture::{CARD_CTL, card};

const NAMESPACES: usize = 10;
/// In each namespace.
const HEALTHY: usize = 18;
const BLACK_HOLED: usize = 2;
const PERIOD: Duration = secs(4);
const WINDOW: Duration = secs(24);
/// What a busy machine may add to a timer.
const SLACK: Duration = Duration::from_millis(600);

fn numbered(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{name}-{number}")).collect()
}

async fn count(spaces: &[Ns], short: &str) -> Result<usize> {
    let mut found = 0;
    for ns in spaces {
        let cards = ns.list(kinds::AGENT_CARD, "").await?;
        found += cards.iter().filter(|card| card.condition("Synced").short() == short).count();
    }
    Ok(found)
}

#[tokio::test]
async fn card_23_steady_state_short() -> Result<()> {
    let suite = cluster().await?;
    let names = numbered("card-23", NAMESPACES);
    let healthy = AgentServer::with_card(suite.cluster(), 8000, card("healthy"))?;
    // Accepts and says nothing, longer than anybody waits.
    let dead = AgentServer::start(suite.cluster(), 8000, |_| {
        std::thread::sleep(secs(15));
        e2e::Answer::status(500)
    })?;
    let mut spaces = Vec::new();
    for name in &names {
        let ns = suite.namespace(name, Value::Null).await?;
        ready_agents(&ns, &numbered("dead", BLACK_HOLED), &dead).await?;
        ready_agents(&ns, &numbered("healthy", HEALTHY), &healthy).await?;
        spaces.push(ns);
    }
    let period = format!("--max-sync-period={}s", PERIOD.as_secs());
    let options = ComponentOptions::new(CARD_CTL)
        .instance("card-ctl-card-23")
        .namespaced(names.clone())
        .args(["--fetch-dial=endpoints", "--enable-verified-fetch=false", "--min-sync-period=1s", &period]);
    let process = Component::start(suite.cluster(), options).await?;
    process.wait_ready(secs(30)).await?;
    wait_for(secs(60), "every card to be looked at", async || {
        let synced = count(&spaces, "True/SyncSucceeded").await?;
        let failed = count(&spaces, "False/FetchFailed").await?;
        let wanted = (NAMESPACES * HEALTHY, NAMESPACES * BLACK_HOLED);
        ensure!((synced, failed) == wanted, "{synced} synced, {failed} failed");
        Ok(Some(()))
    })
    .await
    .with_context(|| process.log_tail())?;

    let (mark, since) = (suite.cluster().audit()?.mark()?, Instant::now());
    tokio::time::sleep(WINDOW).await;
    let writes: Vec<_> = suite
        .object_writes(mark, CARD_CTL)?
        .into_iter()
        .filter(|write| names.contains(&write.namespace))
        .collect();
    assert!(writes.is_empty(), "nothing changes, but: {writes:?}");
    let mut by_host: BTreeMap<String, Vec<Instant>> = BTreeMap::new();
    for request in healthy.seen().into_iter().filter(|request| request.at > since) {
        by_host.entry(request.host).or_default().push(request.at);
    }
    assert_eq!(by_host.len(), NAMESPACES * HEALTHY, "each is asked by its own name");
    let (shortest, longest) = (PERIOD.mul_f64(0.9).saturating_sub(SLACK), PERIOD.mul_f64(1.1) + SLACK);
    for (host, times) in &by_host {
        let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let regular = gaps.iter().all(|gap| (shortest..=longest).contains(gap));
        ensure!(times.len() >= 5 && regular, "{host} was asked {} times, gaps {gaps:?}", times.len());
    }
    // The dead ones cost a slot for a while, each a minute apart at least.
    let attempts = dead.seen().len();
    ensure!(attempts <= 2 * NAMESPACES * BLACK_HOLED, "{attempts} attempts at dead agents");
    Ok(())
}
