//! Hold many enrolled workloads: memory per process, writes while nothing happens, restart until synced.

use std::time::{Duration, Instant};

use anyhow::Result;
use e2e::objects;
use e2e::suite::{RUNTIME_CTL, WEBHOOK};
use futures::{StreamExt as _, stream};
use serde_json::Value;

use crate::report::{Report, Unit, megabytes};
use crate::scene;

/// Namespaces the workloads are spread over.
const NAMESPACES: usize = 50;
/// Progress is told after so many of them.
const TOLD: usize = 10;

/// Runs with `count` workloads without replicas; true when every figure that must hold did.
pub async fn run(count: usize) -> Result<bool> {
    let suite = scene::bare(Some(5_000)).await?;
    let each = count.div_ceil(NAMESPACES);
    let mut spaces = Vec::new();
    for index in 0..NAMESPACES {
        spaces.push(suite.namespace(&format!("hold-{index:02}"), Value::Null).await?);
    }
    let name = |index: usize| format!("agent-{index:05}");
    let start = Instant::now();
    eprintln!("creating {count} Deployments and their AgentRuntimes in {NAMESPACES} namespaces");
    let mut full = stream::iter(spaces.iter().map(|space| async move {
        scene::fill(space, each, |index| objects::deployment(&name(index)).replicas(0).build()).await?;
        scene::fill(space, each, |index| objects::agent_runtime(&name(index), &name(index)).build()).await
    }))
    .buffer_unordered(2)
    .enumerate();
    while let Some((done, result)) = full.next().await {
        result?;
        if (done + 1) % TOLD == 0 {
            eprintln!("  {} of {count}", (done + 1) * each);
        }
    }
    for space in &spaces {
        scene::until_all(space, ["Ready"], each, start, Duration::from_secs(1_800)).await?;
    }
    let made = start.elapsed();
    tokio::time::sleep(Duration::from_secs(30)).await;

    let audit = suite.cluster().audit()?;
    let writes = |mark| {
        anyhow::Ok(
            scene::requests(&suite, RUNTIME_CTL, mark)?.writes
                + scene::requests(&suite, WEBHOOK, mark)?.writes,
        )
    };
    let idle_mark = audit.mark()?;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let idle = writes(idle_mark)?;
    let (controller, webhook) = (suite.runtime_ctl(0)?.usage()?, suite.webhook(0)?.usage()?);

    let restart_mark = audit.mark()?;
    let limit = Duration::from_secs(120);
    let controller_restart = scene::restart_until_ready(suite.runtime_ctl(0)?, limit).await?;
    let webhook_restart = scene::restart_until_ready(suite.webhook(0)?, limit).await?;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let after_restart = writes(restart_mark)?;
    let (controller_again, webhook_again) = (suite.runtime_ctl(0)?.usage()?, suite.webhook(0)?.usage()?);

    let mut report = Report::new(format!("{} enrolled workloads, idle", each * NAMESPACES));
    report.note("until all were made and Ready", format!("{:.0} s", made.as_secs_f64()));
    let zero = |report: &mut Report, figure: &str, value: usize| {
        report.bound(figure, value as f64, &Unit::COUNT, 0.0, 0.0, "-");
    };
    zero(&mut report, "writes in 60 s", idle);
    zero(&mut report, "writes by a restart", after_restart);
    let memory = |report: &mut Report, figure: &str, bytes: u64| {
        report.bound(figure, megabytes(bytes), &Unit::MEGABYTES, 150.0, 100.0, "-");
    };
    memory(&mut report, "runtime-ctl, memory", controller.resident);
    memory(&mut report, "runtime-ctl, peak while they were made", controller.peak_resident);
    memory(&mut report, "runtime-ctl, peak after a restart", controller_again.peak_resident);
    memory(&mut report, "webhook, memory", webhook.resident);
    memory(&mut report, "webhook, peak after a restart", webhook_again.peak_resident);
    report.bound(
        "runtime-ctl, restart to synced",
        controller_restart.as_secs_f64(),
        &Unit::SECONDS,
        10.0,
        5.0,
        "-",
    );
    report.bound("webhook, restart to synced", webhook_restart.as_secs_f64(), &Unit::SECONDS, 10.0, 5.0, "-");
    Ok(report.print())
}
