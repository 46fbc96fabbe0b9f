//! Enrol many Deployments at once, webhook active (design §7).

use std::time::{Duration, Instant};

use anyhow::Result;
use e2e::suite::{RUNTIME_CTL, WEBHOOK};
use e2e::{kinds, objects};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use crate::latency::Histogram;
use crate::report::{Report, Unit, megabytes};
use crate::scene;

const LATENCY: &str = "apiserver_admission_webhook_admission_duration_seconds";

/// Runs with `count` Deployments of one replica; true when every figure that must hold did.
pub async fn run(count: usize) -> Result<bool> {
    let suite = scene::bare(None).await?;
    let space = suite.namespace("bench", Value::Null).await?;
    let serving = scene::restart_until_ready(suite.webhook(0)?, Duration::from_secs(30)).await?;

    let name = |index: usize| format!("agent-{index:05}");
    scene::create(&space, "Deployments", count, |index| objects::deployment(&name(index)).build()).await?;
    scene::until_exist::<Pod>(&space, count, Duration::from_secs(600)).await?;
    // Let the control plane finish what creating them started, so that only the enrolment is measured.
    settle(&suite).await?;

    let audit = suite.cluster().audit()?;
    let mark = audit.mark()?;
    let before = scene::usage(&suite)?;
    let admissions = latency(&suite).await?;
    let start = Instant::now();
    scene::create(&space, "AgentRuntimes", count, |index| {
        objects::agent_runtime(&name(index), &name(index)).build()
    })
    .await?;
    let [ready, rolled] =
        scene::until_all(&space, ["Ready", "PodsConfigured"], count, start, Duration::from_secs(900)).await?;
    settle(&suite).await?;

    let after = scene::usage(&suite)?;
    let admissions = latency(&suite).await?.since(&admissions);
    let controller = scene::requests(&suite, RUNTIME_CTL, mark)?;
    let webhook = scene::requests(&suite, WEBHOOK, mark)?;
    let each = |requests: usize| requests as f64 / count as f64;

    let idle_mark = audit.mark()?;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let idle = scene::requests(&suite, RUNTIME_CTL, idle_mark)?.writes
        + scene::requests(&suite, WEBHOOK, idle_mark)?.writes;

    let mut report = Report::new(format!("Enrol {count} Deployments at once"));
    report.bound("until all are Ready", ready.as_secs_f64(), &Unit::SECONDS, 30.0, 15.0, "160 s");
    report.note("until all Pods are replaced", format!("{:.1} s", rolled.as_secs_f64()));
    let total = each(controller.total + webhook.total);
    report.bound("API requests per enrolment", total, &Unit::COUNT, 6.0, 4.0, "28");
    report.note("  of runtime-ctl", format!("{:.2}", each(controller.total)));
    report.note("  of authbridge-webhook", format!("{:.2}", each(webhook.total)));
    let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
    report.bound("CPU time of our processes", cpu, &Unit::SECONDS, 12.0, 6.0, "112 s");
    let memory = megabytes(after.peak_resident);
    report.bound("peak memory, both processes", memory, &Unit::MEGABYTES, 90.0, 50.0, "206 MB");
    report.bound("mean admission latency", admissions.mean(), &Unit::MILLISECONDS, 5.0, 2.0, "61 ms");
    report.bound(
        "p99 admission latency",
        admissions.quantile(0.99),
        &Unit::MILLISECONDS,
        25.0,
        25.0,
        "> 100 ms",
    );
    report.note("admissions", format!("{:.0}", admissions.count));
    report.bound("start to serving admission", serving.as_secs_f64(), &Unit::SECONDS, 1.0, 0.3, "75 s");
    report.bound("writes in 30 s after it", idle as f64, &Unit::COUNT, 0.0, 0.0, "-");
    for (kind, sum) in controller.kinds.iter().chain(&webhook.kinds) {
        let mean = sum.took.as_secs_f64() * 1e3 / sum.count as f64;
        report.note(&format!("  {kind}"), format!("{}, {mean:.1} ms each", sum.count));
    }
    Ok(report.print())
}

/// Waits until neither component uses the processor nor the number of Pods changes for two seconds.
async fn settle(suite: &e2e::suite::Suite) -> Result<()> {
    let mut quiet = 0;
    let mut last = (Duration::ZERO, String::new());
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let pods = suite.global().await?.list(kinds::POD, "").await?;
        let version = pods.iter().filter_map(|pod| pod.pointer("/metadata/resourceVersion")?.as_str()).max();
        let now = (scene::usage(suite)?.cpu, version.unwrap_or_default().to_owned());
        let still = now.1 == last.1 && now.0.saturating_sub(last.0) < Duration::from_millis(50);
        quiet = if still { quiet + 1 } else { 0 };
        last = now;
        if quiet >= 2 {
            return Ok(());
        }
    }
    anyhow::bail!("the cluster does not come to rest")
}

async fn latency(suite: &e2e::suite::Suite) -> Result<Histogram> {
    let text = suite.cluster().metrics().await?;
    Ok(Histogram::read(&text, LATENCY, &["name=\"enrolled.inject.kagenti.io\""]))
}
