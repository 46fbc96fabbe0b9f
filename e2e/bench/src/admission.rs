//! AdmissionReviews straight to the webhook at a fixed rate (open loop: a late answer does not slow the next
//! request down, so queueing shows as latency).

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::admission::{self, PODS};
use e2e::json::merge;
use e2e::suite::WEBHOOK;
use e2e::{kinds, objects};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::latency::Samples;
use crate::report::{Report, Unit, megabytes};
use crate::scene;

/// Workloads the Pods belong to.
const WORKLOADS: usize = 200;
/// Connections; the API server uses a few as well.
const CONNECTIONS: usize = 8;

/// Runs each rate for `seconds`; true when every figure that must hold did.
pub async fn run(rates: &[u32], seconds: u32) -> Result<bool> {
    let suite = scene::bare(Some(5_000)).await?;
    let space = suite.namespace("bench", json!({"kagenti-enabled": "true"})).await?;
    let reviews = reviews(&space).await?;
    let mut kept = true;
    for rate in rates {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(suite.admission(0).await?);
        }
        // First contact writes ServiceAccounts and ConfigMaps; steady state is what is measured.
        let first = suite.admission(0).await?;
        for review in &reviews {
            let reply = first.post(PODS, review.clone()).await?.ok()?;
            ensure!(reply.pointer("/response/allowed") == Some(&Value::Bool(true)), "not allowed: {reply}");
        }
        let audit = suite.cluster().audit()?.mark()?;
        let before = suite.webhook(0)?.usage()?;
        eprintln!("{rate} admissions per second for {seconds} s");
        let mut samples = Samples::default();
        let mut running: JoinSet<Result<Duration>> = JoinSet::new();
        let start = Instant::now();
        let turns = connections.iter().cycle().zip(reviews.iter().cycle());
        for (index, (connection, review)) in (0..*rate * seconds).zip(turns) {
            let due = start + Duration::from_secs_f64(f64::from(index) / f64::from(*rate));
            tokio::time::sleep_until(due.into()).await;
            while let Some(done) = running.try_join_next() {
                samples.push(done??);
            }
            let (connection, review) = (connection.clone(), review.clone());
            running.spawn(async move {
                connection.post(PODS, review).await?.ok()?;
                Ok(due.elapsed())
            });
        }
        while let Some(done) = running.join_next().await {
            samples.push(done??);
        }
        let took = start.elapsed().as_secs_f64();
        let usage = suite.webhook(0)?.usage()?;
        let calls = scene::requests(&suite, WEBHOOK, audit)?.total;

        let mut report = Report::new(format!("{rate} admissions per second, straight to the webhook"));
        report.note("answered", format!("{} in {took:.1} s", samples.len()));
        report.note("p50", format!("{:.2} ms", samples.quantile(0.5)));
        report.note("p90", format!("{:.2} ms", samples.quantile(0.9)));
        let p99 = samples.quantile(0.99);
        if *rate <= 200 {
            report.bound("p99", p99, &Unit::MILLISECONDS, 20.0, 5.0, "-");
        } else {
            report.note("p99", format!("{p99:.2} ms"));
        }
        report.note("slowest", format!("{:.2} ms", samples.quantile(1.0)));
        let each = usage.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6 / samples.len() as f64;
        report.note("CPU per admission", format!("{each:.0} us"));
        report.bound("API requests of the webhook", calls as f64, &Unit::COUNT, 0.0, 0.0, "5-7 each");
        report.bound("peak memory", megabytes(usage.peak_resident), &Unit::MEGABYTES, 150.0, 50.0, "-");
        kept &= report.print();
    }
    Ok(kept)
}

/// One review per workload, as the API server sends them for Pods of ReplicaSets. The ReplicaSets are real, so the
/// webhook finds the owner.
async fn reviews(space: &e2e::space::Ns) -> Result<Vec<Vec<u8>>> {
    let name = |index: usize| format!("agent-{index:05}");
    scene::create(space, "Deployments", WORKLOADS, |index| {
        objects::deployment(&name(index)).template_label("kagenti.io/type", "agent").replicas(0).build()
    })
    .await?;
    scene::until_exist::<k8s_openapi::api::apps::v1::ReplicaSet>(space, WORKLOADS, Duration::from_secs(120))
        .await?;
    let sets = space.list(kinds::REPLICA_SET, "").await?;
    let mut reviews = Vec::new();
    for set in &sets {
        let text = |pointer: &str| set.pointer(pointer).cloned().unwrap_or_default();
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": text("/spec/template/metadata"),
            "spec": text("/spec/template/spec"),
        });
        let set_name = text("/metadata/name");
        let prefix = format!("{}-", set_name.as_str().unwrap_or_default());
        let owner = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set_name, "uid": text("/metadata/uid"),
            "controller": true, "blockOwnerDeletion": true,
        });
        merge(&mut pod, json!({"metadata": {"generateName": prefix, "ownerReferences": [owner]}}));
        let review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": admission::pod_request(space.name(), pod, false),
        });
        reviews.push(serde_json::to_vec(&review)?);
    }
    Ok(reviews)
}
