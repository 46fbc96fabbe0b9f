//! From the start to the exit code: signals, Leases, an API server that is away, the previous operator.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::old_operator::{HOLDER, LEASE, OldOperator};
use e2e::suite::{RUNTIME_CTL, WEBHOOK};
use e2e::{Json as _, Stopwatch, kinds, objects, secs};
use local_cluster::{Component, ComponentOptions, Exit, Signal, http};
use serde_json::json;

use super::{CLUSTER, Stage, each, lease, ready};
use crate::faults::fixture::{bare, cleared, readyz, until_readyz};

/// How a process ended that was told to, or had to.
async fn ended(process: &Component) -> Result<Exit> {
    tokio::time::timeout(secs(60), process.ended()).await.context("it does not end")?
}

fn code(exit: &Exit, code: i32) -> Result<()> {
    ensure!((exit.code, exit.signal) == (Some(code), None), "{exit:?} instead of {code}");
    Ok(())
}

fn leader_elect(options: ComponentOptions) -> ComponentOptions {
    options.args(["--leader-elect"])
}

/// Packaging §12: after SIGTERM unready, then 0, and the Lease belongs to the other replica within 3 s.
#[tokio::test]
async fn contract_sigterm_gives_the_lease_away() -> Result<()> {
    let suite = CLUSTER.share().await?;
    let stage = Stage::new(&suite, "contract-leases").await?;
    let first = stage.start("first", leader_elect).await?;
    each(&first, async |one| stage.until_leader(one).await).await?;
    ready(&first).await?;
    let second = stage.start("second", leader_elect).await?;
    ready(&second).await.context("a follower is ready")?;
    each(&first, async |one| {
        let other = second.iter().find(|other| other.program.name == one.program.name);
        stage.until_leader(one).await.context("a follower is no leader")?;
        code(&one.process.terminate().await?, 0)?;
        let freed = Stopwatch::start();
        stage.until_leader(other.context("no other replica")?).await?;
        ensure!(freed.spent() <= secs(5), "taken over after {:?}", freed.spent());
        let log = one.process.log();
        let unready = log.find("\"check\":\"shutdown\"").context("never unready")?;
        let done = log.find("\"message\":\"stopped\"").context("not in order")?;
        ensure!(unready < done, "unready only at the end");
        Ok(())
    })
    .await?;
    Ok(())
}

/// Packaging §12: who loses the Lease ends with 1, and leaves it alone.
#[tokio::test]
async fn contract_a_lost_lease_ends_with_1() -> Result<()> {
    let suite = CLUSTER.share().await?;
    let stage = Stage::new(&suite, "contract-thefts").await?;
    let processes = stage.start("robbed", leader_elect).await?;
    ready(&processes).await?;
    each(&processes, async |one| {
        stage.until_leader(one).await?;
        let theft = json!({"spec": {"holderIdentity": "somebody-else"}});
        stage.ns.patch(kinds::LEASE, &lease(one), theft).await?;
        code(&ended(&one.process).await?, 1)?;
        let after = stage.ns.get(kinds::LEASE, &lease(one)).await?;
        ensure!(after.text("/spec/holderIdentity") == "somebody-else", "{}", after.readable());
        Ok(())
    })
    .await?;
    Ok(())
}

/// A second signal does not wait for anything: 130.
#[tokio::test]
async fn contract_a_second_signal_ends_at_once() -> Result<()> {
    let suite = CLUSTER.share().await?;
    let stage = Stage::new(&suite, "contract-signals").await?;
    let processes = stage.start("signals", |options| options).await?;
    ready(&processes).await?;
    each(&processes, async |one| {
        // Frozen, so that both signals are there when it goes on, however quick it would have ended.
        for signal in [Signal::Stop, Signal::Term, Signal::Int] {
            one.process.signal(signal).await?;
        }
        let started = Stopwatch::start();
        one.process.signal(Signal::Cont).await?;
        code(&ended(&one.process).await?, 130)?;
        ensure!(started.spent() < secs(2), "{:?}", started.spent());
        Ok(())
    })
    .await?;
    Ok(())
}

/// Without an API server a process stays alive and unready, and works once there is one.
#[tokio::test]
async fn contract_start_without_api_server() -> Result<()> {
    let suite = cleared(CLUSTER.alone().await?).await?;
    let stage = Stage::new(&suite, "contract-early").await?;
    let processes = stage.start("early", |options| options).await?;
    ready(&processes).await?;
    each(&processes, async |one| one.process.kill9().await).await?;
    suite.cluster().api_server().stop().await?;
    let outcome = each(&processes, async |one| {
        one.process.restart().await?;
        let started = Stopwatch::start();
        let mut seen = 0;
        while started.spent() < secs(5) {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let Ok((status, text)) = readyz(&one.process).await else {
                ensure!(started.spent() < secs(3), "no probes");
                continue;
            };
            ensure!(status == 503, "ready without API server: {text}");
            let (alive, _) = http::get(&format!("{}/healthz", one.process.probe_url())).await?;
            ensure!(alive.is_success(), "not alive: {alive}");
            seen += 1;
        }
        ensure!(seen > 5, "hardly any answer");
        Ok(one.process.pid())
    })
    .await;
    suite.cluster().api_server().start().await?;
    let pids = outcome?;
    ready(&processes).await?;
    for (one, pid) in processes.iter().zip(pids) {
        assert_eq!(one.process.pid(), pid, "the same process: {}", one.program.name);
        assert!(one.process.is_running() && !one.process.log().contains("panic"), "{}", one.process.log());
    }
    let ns = suite.namespace("contract-early-team", json!({})).await?;
    ns.create(objects::deployment("early")).await?;
    ns.create(objects::agent_runtime("early", "early")).await?;
    ns.until_ready(secs(30), "early").await?;
    Ok(())
}

/// While the operator that this suite replaces renews its Lease nobody writes, and everyone says why; `faults::legacy` has
/// what becomes of the work meanwhile.
#[tokio::test]
async fn contract_the_old_operator_holds_everything_back() -> Result<()> {
    // Not where other tests' programs would do the work.
    let suite = bare().await?;
    let stage = Stage::new(&suite, "contract-legacy").await?;
    let ns = suite.namespace("contract-legacy-team", json!({"kagenti-enabled": "true"})).await?;
    let agent = objects::deployment("weather").label("kagenti.io/type", "agent");
    ns.create(agent.label("protocol.kagenti.io/a2a", "")).await?;
    ns.create(objects::agent_runtime("weather", "weather")).await?;
    let legacy = OldOperator::start(&stage.ns, 3).await?;
    let mark = suite.cluster().audit()?.mark()?;
    let processes = stage.start("held", |options| options).await?;
    each(&processes, async |one| {
        let text = until_readyz(&one.process, 503, &[LEASE, HOLDER]).await?;
        ensure!(text.contains("uninstall it or scale it to 0"), "no remedy: {text}");
        Ok(())
    })
    .await?;
    // Longer than the Lease lasts: it is the renewal that counts.
    ns.stays(secs(4), kinds::AGENT_RUNTIME, "weather").await?;
    each(&processes, async |one| {
        let mut writes = suite.object_writes(mark, &one.process.spec().name)?;
        // The webhook's own authority may be made at any time.
        writes.retain(|write| one.program.name != WEBHOOK || write.resource != "secrets");
        ensure!(writes.is_empty(), "it wrote {writes:?}");
        Ok(())
    })
    .await?;
    legacy.stop().await?;
    ready(&processes).await.context("once the Lease has run out")?;
    // There was something to do.
    ns.until_ready(secs(20), "weather").await?;
    for program in [RUNTIME_CTL, "card-ctl"] {
        ensure!(
            !suite.object_writes(mark, &format!("{program}-held"))?.is_empty(),
            "{program} wrote nothing"
        );
    }
    Ok(())
}
