//! Card scenario 23, and the controller killed in the middle of its work: shortened among the acceptance tests, in full
//! in the long suite.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use local_cluster::Component;
use serde_json::Value;

use crate::agents::{CARD_CTL, card, numbered, ready_agents, start_card_ctl};
use crate::json::Json as _;
use crate::{AgentServer, Answer, Ns, Stopwatch, Suite, kinds, secs, wait_for};

/// How many agents, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Prefix of the namespaces.
    pub name: &'static str,
    /// Their number.
    pub namespaces: usize,
    /// Agents in each of them that answer until the end.
    pub healthy: usize,
    /// Agents in each of them that fall silent: their connections are accepted, and nothing is said.
    pub black_holed: usize,
    /// How often each is asked; not more than the 30 s of a card that is made automatically.
    pub period: Duration,
    /// How long it is watched, before and after some have fallen silent.
    pub window: Duration,
    /// What may be added to a timer, besides the time in which the machine is short of CPUs.
    pub slack: Duration,
    /// Until every card is what it should be.
    pub limit: Duration,
}

/// A load at work.
struct Steady<'a> {
    suite: &'a Suite,
    load: Load,
    spaces: Vec<Ns>,
    healthy: AgentServer,
    mortal: AgentServer,
    process: Component,
}

/// Card 23: each agent is asked once per period and nothing is written; those that fall silent do not disturb the
/// others.
pub async fn steady_state(suite: &Suite, load: Load) -> Result<()> {
    let healthy = AgentServer::with_card(suite.cluster(), 8000, card("healthy"))?;
    let mortal = AgentServer::with_card(suite.cluster(), 8000, card("mortal"))?;
    let names = numbered(load.name, load.namespaces);
    let mut spaces = Vec::new();
    for name in &names {
        let ns = suite.namespace(name, Value::Null).await?;
        ready_agents(&ns, &numbered("mortal", load.black_holed), &mortal).await?;
        ready_agents(&ns, &numbered("healthy", load.healthy), &healthy).await?;
        spaces.push(ns);
    }
    let period = format!("--max-sync-period={}s", load.period.as_secs());
    let flags = ["--min-sync-period=1s", &period];
    let process = start_card_ctl(suite, &format!("{CARD_CTL}-{}", load.name), names, &flags).await?;
    let steady = Steady { suite, load, spaces, healthy, mortal, process };
    steady.until(0).await?;
    steady.all_answer().await?;

    steady.mortal.say(|_| {
        // Longer than anybody waits.
        std::thread::sleep(secs(15));
        Answer::status(500)
    });
    steady.until(load.namespaces * load.black_holed).await?;
    steady.some_are_silent().await
}

impl Steady<'_> {
    /// Waits until so many fetches have failed, and all others have succeeded.
    async fn until(&self, silent: usize) -> Result<()> {
        let Load { namespaces, healthy, black_holed, limit, .. } = self.load;
        let all = namespaces * (healthy + black_holed);
        wait_for(limit, "every card to be looked at", async || {
            let (mut synced, mut failed) = (0, 0);
            for ns in &self.spaces {
                for card in ns.list(kinds::AGENT_CARD, "").await? {
                    match card.condition("Synced").short().as_str() {
                        "True/SyncSucceeded" => synced += 1,
                        "False/FetchFailed" => failed += 1,
                        _ => {}
                    }
                }
            }
            ensure!((synced, failed) == (all - silent, silent), "{synced} synced, {failed} failed");
            Ok(Some(()))
        })
        .await
        .with_context(|| self.process.log_tail())
    }

    /// Lets the window pass. Nothing is written, and the agents of `server` are asked once per period; how often
    /// altogether, and the slack that this machine had to be given.
    async fn watch(&self, server: &AgentServer, agents: usize) -> Result<(usize, Duration)> {
        let Load { name, period, window, slack, .. } = self.load;
        let (mark, since) = (self.suite.cluster().audit()?.mark()?, Instant::now());
        let stopwatch = Stopwatch::start();
        tokio::time::sleep(window).await;
        let slack = slack + window.saturating_sub(stopwatch.spent());
        let prefix = format!("{name}-");
        let mut writes = self.suite.object_writes(mark, CARD_CTL)?;
        writes.retain(|write| write.namespace.starts_with(&prefix));
        ensure!(writes.is_empty(), "nothing changes, but: {writes:?}");

        let by_host = server.times_by_host(since);
        ensure!(by_host.len() == agents, "{} of {agents} were asked by their own names", by_host.len());
        let (shortest, longest) = (period.mul_f64(0.9).saturating_sub(slack), period.mul_f64(1.1) + slack);
        let at_least = window.as_millis() / longest.as_millis();
        for (host, times) in &by_host {
            let gaps: Vec<Duration> = times
                .iter()
                .zip(times.iter().skip(1))
                .map(|(from, to)| to.saturating_duration_since(*from))
                .collect();
            let regular = gaps.iter().all(|gap| (shortest..=longest).contains(gap));
            ensure!(
                times.len() as u128 >= at_least && regular,
                "{host} was asked {} times in {window:?}, gaps {gaps:?}",
                times.len()
            );
        }
        Ok((by_host.values().map(Vec::len).sum(), slack))
    }

    async fn all_answer(&self) -> Result<()> {
        let Load { namespaces, healthy, black_holed, period, window, .. } = self.load;
        let before = self.mortal.count();
        let (asked, slack) = self.watch(&self.healthy, namespaces * healthy).await?;
        let asked = asked + self.mortal.count() - before;
        let (rate, all) = (asked as f64 / window.as_secs_f64(), namespaces * (healthy + black_holed));
        eprintln!("{all} cards: {rate:.1} fetches per second, no write in {window:?}");
        // The window cuts some periods short.
        let slowest = 0.95 * all as f64 / (period + slack).as_secs_f64();
        let fastest = 1.05 * all as f64 / period.saturating_sub(slack).as_secs_f64();
        ensure!((slowest..=fastest).contains(&rate), "{rate:.1} fetches per second for {all} cards");
        Ok(())
    }

    async fn some_are_silent(&self) -> Result<()> {
        let Load { namespaces, healthy, black_holed, window, .. } = self.load;
        let before = self.mortal.count();
        let (asked, _) = self.watch(&self.healthy, namespaces * healthy).await?;
        // They cost a slot for a while, so they are asked a minute apart at least.
        let attempts = self.mortal.count() - before;
        eprintln!("{asked} fetches in {window:?} beside {attempts} attempts at silent agents, no write");
        let most = namespaces * black_holed * (1 + usize::try_from(window.as_secs() / 50)?);
        ensure!(attempts <= most, "{attempts} attempts at silent agents");
        Ok(())
    }
}

/// card-ctl is killed twice in the middle of so many syncs: all are done, each once; and killed again when all is
/// settled, it writes nothing.
pub async fn killed_in_mid_sync(suite: &Suite, namespace: &str, agents: usize) -> Result<()> {
    let ns = suite.namespace(namespace, Value::Null).await?;
    // Slow enough to be interrupted: four at a time in one namespace.
    let took = Duration::from_millis(150);
    let server = AgentServer::start(suite.cluster(), 8000, move |_| {
        std::thread::sleep(took);
        Answer::json(&card("slow"))
    })?;
    ready_agents(&ns, &numbered("agent", agents), &server).await?;
    let limit = secs(60) + took * u32::try_from(agents).context("their number")?;
    let mark = suite.cluster().audit()?.mark()?;
    let process =
        start_card_ctl(suite, &format!("{CARD_CTL}-{namespace}"), vec![namespace.to_owned()], &[]).await?;
    for share in [agents / 5, agents / 2] {
        let mut done = 0;
        wait_for(limit, "part of the syncs", async || {
            done = synced(&ns).await?.1;
            Ok((done >= share).then_some(()))
        })
        .await?;
        ensure!(done < agents, "all was done before anything was killed");
        process.kill9().await?;
        process.restart().await?;
    }
    wait_for(limit, "all cards to be synced", async || {
        let counts = synced(&ns).await?;
        ensure!(counts == (agents, agents), "(cards, synced) = {counts:?}");
        Ok(Some(()))
    })
    .await
    .with_context(|| process.log_tail())?;
    each_once(suite, &ns, mark, agents).await?;

    // Another restart of a settled world writes nothing (card §19).
    process.kill9().await?;
    let (mark, before) = (suite.cluster().audit()?.mark()?, server.count());
    process.restart().await?;
    process.wait_ready(secs(30)).await?;
    wait_for(limit, "every agent to be asked again", async || {
        Ok((server.count() >= before + agents).then_some(()))
    })
    .await?;
    tokio::time::sleep(secs(1)).await;
    let mut writes = suite.object_writes(mark, CARD_CTL)?;
    writes.retain(|write| write.namespace == ns.name());
    ensure!(writes.is_empty(), "{writes:?}");
    Ok(())
}

/// Cards, and how many of them are synced.
async fn synced(ns: &Ns) -> Result<(usize, usize)> {
    let cards = ns.list(kinds::AGENT_CARD, "").await?;
    let synced = cards.iter().filter(|card| card.condition("Synced").short() == "True/SyncSucceeded").count();
    Ok((cards.len(), synced))
}

/// Every card was made once and has one owner, and nobody was told of anything strange.
async fn each_once(suite: &Suite, ns: &Ns, mark: local_cluster::Mark, agents: usize) -> Result<()> {
    let mut made = suite.object_writes(mark, CARD_CTL)?;
    made.retain(|write| write.namespace == ns.name() && write.resource == "agentcards");
    let created = made.iter().filter(|write| write.verb == "create" && write.code == 201).count();
    ensure!(created == agents, "{created} cards made for {agents} agents");
    ensure!(!made.iter().any(|write| write.verb == "delete"), "{made:?}");
    for card in ns.list(kinds::AGENT_CARD, "").await? {
        ensure!(card.items("/metadata/ownerReferences").len() == 1, "{}", card.readable());
    }
    let events = ns.list(kinds::EVENT, "").await?;
    let strange: Vec<&str> = events
        .iter()
        .map(|event| event.text("/reason"))
        .filter(|reason| ["DuplicateTarget", "TargetRefConflict", "CardContentChanged"].contains(reason))
        .collect();
    ensure!(strange.is_empty(), "{strange:?}");
    Ok(())
}
