//! Keep many agent cards up to date: all of them from nothing, their cost while nothing changes, and what agents that
//! fall silent do to the others (card §6.5, §19).

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::agents::{CARD_CTL, card, numbered, ready_agents};
use e2e::exposition::sum;
use e2e::suite::{Options, Suite};
use e2e::{AgentServer, Answer, Json as _, Ns, kinds, wait_for};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use local_cluster::{ClusterOptions, Component, ComponentOptions, Profile, Usage};
use serde_json::Value;

use crate::latency::{Histogram, Samples};
use crate::report::{Report, Unit, megabytes};
use crate::scene::{self, Requests};

/// Namespaces the agents are spread over.
const NAMESPACES: usize = 50;
/// The period of a card that is made automatically, and the longest one after its jitter.
const PERIOD: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(33);
/// Longer than any pause between two requests to an agent.
const WINDOW: Duration = Duration::from_secs(45);
/// Until every card is what it should be; not a promise of the product, only an end to waiting.
const LIMIT: Duration = Duration::from_secs(180);
const DELAY: &str = "kagenti_card_fetch_delay_seconds";

/// What happened in a window.
struct Watched {
    took: Duration,
    requests: Requests,
    cpu: Duration,
    fetches: f64,
    /// Of successful fetches, as card-ctl measures it: from the time when one was due to its start.
    delay: Histogram,
}

struct Bench {
    suite: Suite,
    process: Component,
    healthy: AgentServer,
    mortal: AgentServer,
    count: usize,
    dead: usize,
}

/// Runs with `count` agents of which `dead` fall silent; true when every figure that must hold did.
pub async fn run(count: usize, dead: usize) -> Result<bool> {
    ensure!(dead < count, "--dead must be less than --count");
    let bench = Bench::start(count, dead).await?;
    let mark = bench.suite.cluster().audit()?.mark()?;
    let start = Instant::now();
    bench.process.restart().await?;
    bench.until(0).await?;
    let filled = start.elapsed();
    let first = Watched::new(&bench, mark, filled, &Usage::default(), "").await?;
    bench.check(0).await?;

    eprintln!("watching {count} agents that answer for {WINDOW:?}");
    let calm = bench.watch(WINDOW).await?;

    eprintln!("{dead} agents fall silent");
    bench.mortal.say(|_| {
        // Longer than anybody waits.
        std::thread::sleep(Duration::from_secs(15));
        Answer::status(500)
    });
    let dying = bench.watch_until_silent().await?;
    eprintln!("watching the others for {WINDOW:?}");
    let since = Instant::now();
    let besides = bench.watch(WINDOW).await?;
    let (mut late, asked) = bench.lateness(since);
    bench.check(dead).await?;
    let usage = bench.process.usage()?;

    eprintln!("restarting card-ctl");
    let restart_mark = bench.suite.cluster().audit()?.mark()?;
    let (ready, again) = bench.restart().await?;
    let restart_writes = scene::requests(&bench.suite, CARD_CTL, restart_mark)?.writes;
    let peak = usage.peak_resident.max(bench.process.usage()?.peak_resident);

    let mut report = Report::new(format!("{count} agent cards, asked every 30 s"));
    report.note("all cards made and synced, from nothing", format!("{:.1} s", filled.as_secs_f64()));
    report.note("  CPU time for it", format!("{:.1} s", first.cpu.as_secs_f64()));
    report.note("  API requests per card", format!("{:.2}", first.requests.total as f64 / count as f64));
    for (kind, sum) in &first.requests.kinds {
        report.note(&format!("    {kind}"), sum.count);
    }
    report.bound("peak memory", megabytes(peak), &Unit::MEGABYTES, 150.0, 100.0, "-");
    report.note("memory at the end", format!("{:.0} MB", megabytes(bench.process.usage()?.resident)));
    for (when, watched) in [("", &calm), (" beside silent ones", &besides)] {
        report.note(&format!("fetches per second{when}"), format!("{:.1}", watched.fetches_per_second()));
        report.note(&format!("  CPU, cores{when}"), format!("{:.3}", watched.cores()));
        let writes = watched.requests.writes as f64;
        report.bound(&format!("  writes{when}"), writes, &Unit::COUNT, 0.0, 0.0, "-");
        report.note(&format!("  other API requests{when}"), watched.requests.total - watched.requests.writes);
        report.bound(
            &format!("  due to start, p99{when}"),
            watched.delay.quantile(0.99),
            &Unit::MILLISECONDS,
            1_000.0,
            100.0,
            "-",
        );
    }
    report.bound(
        &format!("{dead} fall silent: due to start of the others, p99"),
        dying.delay.quantile(0.99),
        &Unit::MILLISECONDS,
        1_000.0,
        500.0,
        "-",
    );
    report.note("  over", format!("{:.0} s", dying.took.as_secs_f64()));
    report.note("  mean", format!("{:.0} ms", dying.delay.mean()));
    // The agents' own view: whatever they waited longer than the longest jittered period.
    report.bound(
        "pause beyond 33 s beside silent ones, agents' own log, p99",
        late.quantile(0.99),
        &Unit::MILLISECONDS,
        1_000.0,
        100.0,
        "-",
    );
    report.note("  longest", format!("{:.0} ms in {asked} pauses", late.quantile(1.0)));
    report.note("restart to ready", format!("{:.1} s", ready.as_secs_f64()));
    report.note("restart until all others are asked", format!("{:.1} s", again.as_secs_f64()));
    report.bound("writes by a restart", restart_writes as f64, &Unit::COUNT, 0.0, 0.0, "-");
    Ok(report.print())
}

impl Watched {
    async fn new(
        bench: &Bench,
        mark: local_cluster::Mark,
        took: Duration,
        before: &Usage,
        page_before: &str,
    ) -> Result<Self> {
        let page = bench.process.metrics_text().await?;
        let fetches = |page: &str| sum(page, "kagenti_card_fetch_total", &[("source", "http")]);
        Ok(Self {
            took,
            cpu: bench.process.usage()?.cpu.saturating_sub(before.cpu),
            requests: scene::requests(&bench.suite, CARD_CTL, mark)?,
            fetches: fetches(&page) - fetches(page_before),
            delay: Histogram::read(&page, DELAY, &[]).since(&Histogram::read(page_before, DELAY, &[])),
        })
    }

    fn cores(&self) -> f64 {
        self.cpu.as_secs_f64() / self.took.as_secs_f64()
    }

    fn fetches_per_second(&self) -> f64 {
        self.fetches / self.took.as_secs_f64()
    }
}

impl Bench {
    /// A control plane where nothing acts but card-ctl, and the agents; card-ctl has its rights and does not run yet.
    async fn start(count: usize, dead: usize) -> Result<Self> {
        let cluster = ClusterOptions {
            nodes: 0,
            controller_manager: false,
            scheduler: false,
            profile: Profile::Release,
            ..ClusterOptions::default()
        };
        let options = Options { cluster, ..Options::default().without_webhook().without_runtime_ctl() };
        // Before the clock starts.
        let profile = options.cluster.profile;
        tokio::task::spawn_blocking(move || local_cluster::components::build(&[CARD_CTL], profile))
            .await
            .context("building the component")??;
        eprintln!("starting a control plane and card-ctl (release build)");
        let suite = Suite::own(options).await?;
        let healthy = AgentServer::with_card(suite.cluster(), 8000, card("healthy"))?;
        let mortal = AgentServer::with_card(suite.cluster(), 8000, card("mortal"))?;
        let component =
            ComponentOptions::new(CARD_CTL).args(["--fetch-dial=endpoints", "--enable-verified-fetch=false"]);
        let process = Component::start(suite.cluster(), component).await?;
        process.terminate().await?;
        let bench = Self { suite, process, healthy, mortal, count, dead };
        bench.fill().await?;
        Ok(bench)
    }

    /// Makes the agents, the mortal ones in all namespaces.
    async fn fill(&self) -> Result<()> {
        let Self { count, dead, .. } = *self;
        eprintln!("creating {count} agents: Deployments, Services, EndpointSlices");
        let mut spaces: Vec<(Ns, usize, usize)> = Vec::new();
        let share = |all: usize, index: usize| all / NAMESPACES + usize::from(index < all % NAMESPACES);
        for index in 0..NAMESPACES {
            let space = self.suite.namespace(&format!("cards-{index:02}"), Value::Null).await?;
            spaces.push((space, share(count - dead, index), share(dead, index)));
        }
        stream::iter(&spaces)
            .map(async |(space, lively, mortal)| {
                ready_agents(space, &numbered("mortal", *mortal), &self.mortal).await?;
                ready_agents(space, &numbered("agent", *lively), &self.healthy).await
            })
            .buffer_unordered(2)
            .try_for_each(async |()| Ok(()))
            .await
    }

    /// Waits until card-ctl says that so many cards are not synced, and all others are.
    async fn until(&self, silent: usize) -> Result<()> {
        wait_for(LIMIT, "every card to be looked at", async || {
            let page = self.process.metrics_text().await?;
            let cards = |synced: &str| sum(&page, "kagenti_agentcards", &[("synced", synced)]);
            let (good, bad) = (cards("true"), cards("false"));
            ensure!(
                good >= (self.count - silent) as f64 && bad >= silent as f64,
                "{good} synced, {bad} not synced"
            );
            Ok(Some(()))
        })
        .await
        .with_context(|| self.process.log_tail())
    }

    /// What card-ctl says of itself is so.
    async fn check(&self, silent: usize) -> Result<()> {
        let cards = self.suite.global().await?.list(kinds::AGENT_CARD, "").await?;
        let are = |short: &str| cards.iter().filter(|card| card.condition("Synced").short() == short).count();
        let (synced, failed) = (are("True/SyncSucceeded"), are("False/FetchFailed"));
        ensure!(
            (synced, failed) == (self.count - silent, silent),
            "{synced} cards are synced and {failed} are not, of {}",
            cards.len()
        );
        Ok(())
    }

    async fn watch(&self, window: Duration) -> Result<Watched> {
        self.watching(async || {
            tokio::time::sleep(window).await;
            Ok(())
        })
        .await
    }

    async fn watch_until_silent(&self) -> Result<Watched> {
        self.watching(async || self.until(self.dead).await).await
    }

    async fn watching(&self, wait: impl AsyncFnOnce() -> Result<()>) -> Result<Watched> {
        let (mark, usage) = (self.suite.cluster().audit()?.mark()?, self.process.usage()?);
        let page = self.process.metrics_text().await?;
        let since = Instant::now();
        wait().await?;
        Watched::new(self, mark, since.elapsed(), &usage, &page).await
    }

    /// By how much each pause between two requests to a healthy agent exceeded the longest jittered period, and the
    /// number of pauses. One that has not ended counts, too, when it is too long already.
    fn lateness(&self, since: Instant) -> (Samples, usize) {
        let now = Instant::now();
        let mut late = Samples::default();
        let mut push = |from: Instant, to: Instant| {
            late.push(to.saturating_duration_since(from).saturating_sub(LONGEST));
        };
        let by_host = self.healthy.times_by_host(since);
        for times in by_host.values() {
            for (from, to) in times.iter().zip(times.iter().skip(1).chain([&now])) {
                push(*from, *to);
            }
        }
        // Those that were not asked at all.
        (by_host.len()..self.count - self.dead).for_each(|_| push(since, now));
        let pauses = late.len();
        (late, pauses)
    }

    /// Ends card-ctl and starts it again: until it is ready, and until every healthy agent was asked. Returns when it
    /// has judged all others, too.
    async fn restart(&self) -> Result<(Duration, Duration)> {
        self.process.terminate().await?;
        let (start, attempts) = (Instant::now(), self.mortal.count());
        self.process.restart().await?;
        self.process.wait_ready(PERIOD).await?;
        let ready = start.elapsed();
        wait_for(LIMIT, "every healthy agent to be asked again", async || {
            let asked = self.healthy.times_by_host(start).len();
            ensure!(asked >= self.count - self.dead, "{asked} are");
            Ok(Some(()))
        })
        .await?;
        let again = start.elapsed();
        wait_for(LIMIT, "every silent agent to be tried again", async || {
            Ok((self.mortal.count() - attempts >= self.dead).then_some(()))
        })
        .await?;
        // Longer than a fetch.
        tokio::time::sleep(Duration::from_secs(12)).await;
        Ok((ready, again))
    }
}
