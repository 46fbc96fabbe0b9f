//! Register many agents in a real Keycloak: all of them from nothing, their cost while nothing changes, a restart; and
//! the same with a Keycloak that is stopped for a minute in the middle (client-registration §17).

mod place;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::exposition::sum;
use e2e::services::registration::COMPONENT;
use e2e::wait_for;

use self::place::Place;
use crate::calls::Calls;
use crate::report::{Report, Unit, megabytes};
use crate::scene;

/// How long is looked whether anything happens.
const WINDOW: Duration = Duration::from_secs(30);
/// How long Keycloak is away.
const AWAY: Duration = Duration::from_secs(60);
/// Until every agent is registered; not a promise of the product, only an end to waiting.
const LIMIT: Duration = Duration::from_secs(1_200);
/// A restart spreads the looks at Keycloak over `--resync-period`. They are not what is measured.
const NO_RESYNC: &str = "--resync-period=10000h";

/// Runs with `count` agents and, when given, another `--keycloak-qps`; true when every figure that must hold did.
pub async fn run(count: usize, qps: Option<u32>) -> Result<bool> {
    let place = Place::start(count, qps).await?;
    let (mark, seen) = (place.suite.cluster().audit()?.mark()?, place.proxy.mark());
    let start = Instant::now();
    place.process.restart().await?;
    let took = place.until_registered(start, LIMIT).await?;
    let calls = place.calls(seen);
    let page = place.process.metrics_text().await?;
    calls.agree_with(sum(&page, "keycloak_requests_total", &[]))?;
    let requests = scene::requests_in(&place.suite, COMPONENT, &place.space, mark)?;
    let usage = place.process.usage()?;
    let checked = place.check().await?;

    eprintln!("watching {count} registered agents for {WINDOW:?}");
    let (mark, seen) = (place.suite.cluster().audit()?.mark()?, place.proxy.mark());
    tokio::time::sleep(WINDOW).await;
    let idle = (place.calls(seen), scene::requests(&place.suite, COMPONENT, mark)?.writes);

    eprintln!("restarting client-registration-ctl");
    let before = place.process.usage()?.peak_resident;
    place.process.terminate().await?;
    let (mark, seen) = (place.suite.cluster().audit()?.mark()?, place.proxy.mark());
    let start = Instant::now();
    place.process.restart_with(&[NO_RESYNC.to_owned()]).await?;
    place.until_counted(LIMIT).await?;
    let settled = start.elapsed();
    tokio::time::sleep(WINDOW).await;
    let restart = (place.calls(seen), scene::requests(&place.suite, COMPONENT, mark)?.writes);
    let peak = before.max(place.process.usage()?.peak_resident);

    let rate = qps.map_or_else(String::new, |qps| format!(", --keycloak-qps={qps}"));
    let mut report = Report::new(format!("Register {count} agents in Keycloak{rate}"));
    report.note("until all are registered, from nothing", seconds(took));
    costs(&mut report, count, &calls, &requests);
    report.note("CPU time for it", seconds(usage.cpu));
    report.bound("peak memory", megabytes(peak), &Unit::MEGABYTES, 60.0, 40.0, "-");
    report.note("memory at the end", format!("{:.0} MB", megabytes(place.process.usage()?.resident)));
    for (when, (calls, writes)) in [("in 30 s after it", idle), ("by a restart", restart)] {
        let (calls, writes) = (calls.total() as f64, writes as f64);
        report.bound(&format!("Keycloak requests {when}, logins too"), calls, &Unit::COUNT, 0.0, 0.0, "-");
        report.bound(&format!("Kubernetes writes {when}"), writes, &Unit::COUNT, 0.0, 0.0, "-");
    }
    report.note("restart until all are known to be registered", seconds(settled));
    checked.tell(&mut report);
    Ok(report.print())
}

/// The same with a Keycloak that is stopped when half of the agents are registered, and started a minute later.
pub async fn outage(count: usize, qps: Option<u32>) -> Result<bool> {
    let place = Place::start(count, qps).await?;
    let (mark, seen) = (place.suite.cluster().audit()?.mark()?, place.proxy.mark());
    let start = Instant::now();
    place.process.restart().await?;
    wait_for(LIMIT, "half of the agents to be registered", async || {
        let delivered = place.secrets.delivered();
        ensure!(delivered >= count / 2, "{delivered} are");
        Ok(Some(()))
    })
    .await?;
    let half = (place.secrets.delivered(), start.elapsed());
    eprintln!("stopping Keycloak for {AWAY:?}; {} agents are registered", half.0);
    place.keycloak.server().stop().await.context("stopping Keycloak")?;
    let (gone, stopped) = (place.proxy.mark(), Instant::now());
    tokio::time::sleep(AWAY).await;
    let asked = place.calls(gone).total();
    place.keycloak.server().start_again().await.context("starting Keycloak again")?;
    let (away, back) = (stopped.elapsed(), Instant::now());
    let meanwhile = place.calls(gone).total();
    let took = place.until_registered(start, LIMIT).await?;
    let after = back.elapsed();
    let calls = place.calls(seen);
    let page = place.process.metrics_text().await?;
    calls.agree_with(sum(&page, "keycloak_requests_total", &[]))?;
    let requests = scene::requests_in(&place.suite, COMPONENT, &place.space, mark)?;
    let usage = place.process.usage()?;
    let checked = place.check().await?;

    let mut report = Report::new(format!("Register {count} agents, Keycloak stopped in the middle"));
    report.note("registered when it was stopped", format!("{} after {}", half.0, seconds(half.1)));
    report.note("until it answered again", seconds(away));
    report.note("requests to it in its 60 s without process", asked);
    report.note("  until it answered again", meanwhile);
    report.note("until all are registered, after it was back", seconds(after));
    report.note("  from the start", seconds(took));
    report.note("requests that failed", calls.failed);
    notes(&mut report, count, &calls, &requests);
    report.note("CPU time for it", seconds(usage.cpu));
    report.bound("peak memory", megabytes(usage.peak_resident), &Unit::MEGABYTES, 60.0, 40.0, "-");
    checked.tell(&mut report);
    Ok(report.print())
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// What registering cost, where nothing went wrong.
fn costs(report: &mut Report, count: usize, calls: &Calls, requests: &scene::Requests) {
    let each = |number: usize| number as f64 / count as f64;
    report.bound("Keycloak requests per agent", each(calls.work), &Unit::HUNDREDTHS, 6.0, 6.0, "-");
    kinds(report, calls);
    report.note("logins", calls.tokens);
    report.bound("Kubernetes requests per agent", each(requests.total), &Unit::HUNDREDTHS, 4.0, 4.0, "-");
    for (kind, sum) in &requests.kinds {
        report.note(&format!("  {kind}"), sum.count);
    }
}

/// The same without bounds.
fn notes(report: &mut Report, count: usize, calls: &Calls, requests: &scene::Requests) {
    let each = |number: usize| format!("{:.2}", number as f64 / count as f64);
    report.note("Keycloak requests per agent", each(calls.work));
    kinds(report, calls);
    report.note("logins", calls.tokens);
    report.note("Kubernetes requests per agent", each(requests.total));
    for (kind, sum) in &requests.kinds {
        report.note(&format!("  {kind}"), sum.count);
    }
}

fn kinds(report: &mut Report, calls: &Calls) {
    for (kind, count) in &calls.kinds {
        report.note(&format!("  {kind}"), count);
    }
}
