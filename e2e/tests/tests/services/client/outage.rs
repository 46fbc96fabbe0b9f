//! Scenarios 10 and 16: Keycloak is down.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::exposition;
use e2e::json::Json as _;
use e2e::services::agents::{account, agent, until_credentials};
use e2e::services::registration::{Registration, Setup};
use e2e::{Ns, kinds, objects, secs, wait_for};

/// Keycloak is down for `outage` with `count` eligible workloads.
async fn keycloak_down(realm: &'static str, count: usize, outage: Duration) -> Result<()> {
    let registration = Registration::own(Setup::new(realm).proxied()).await?;
    let (proxy, ns) = (registration.proxy()?, registration.place("team1").await?);
    proxy.down();
    for number in 0..count {
        ns.create(agent(&format!("agent-{number}")).replicas(0)).await?;
    }
    ns.create(objects::agent_runtime("agent-0", "agent-0")).await?;
    // The rate is one of an outage that lasts: the first calls find out about it.
    tokio::time::sleep(outage / 4).await;
    let mark = proxy.mark();
    let settled = outage * 3 / 4;
    tokio::time::sleep(settled).await;
    let calls = proxy.since(mark).len();
    ensure!(calls as f64 / settled.as_secs_f64() < 2.0, "{calls} calls in {settled:?}");
    let secrets = ns.list(kinds::SECRET, "app.kubernetes.io/managed-by=kagenti-operator").await?;
    ensure!(secrets.is_empty(), "{} Secrets were written", secrets.len());
    let events = ns.list(kinds::EVENT, "").await?;
    let warnings: Vec<_> = events.into_iter().filter(|event| event.text("/type") == "Warning").collect();
    for number in 0..count {
        let about = format!("agent-{number}");
        let of = warnings.iter().filter(|event| event.text("/regarding/name") == about);
        let of: Vec<_> = of.cloned().collect();
        ensure!(Ns::occurrences(&of) <= 1, "{about}: {of:?}");
    }
    proxy.heal();
    wait_for(secs(300), "every agent to be registered", async || {
        let secrets = ns.list(kinds::SECRET, "app.kubernetes.io/managed-by=kagenti-operator").await?;
        Ok((secrets.len() == count).then_some(()))
    })
    .await?;
    for secret in ns.list(kinds::SECRET, "app.kubernetes.io/managed-by=kagenti-operator").await? {
        let account = account(&secret)?;
        ensure!(!account.id.is_empty() && !account.secret.is_empty(), "{}", secret.name());
    }
    let mut ids = registration.realm().agents().await?;
    let all = ids.len();
    ids.dedup();
    ensure!(ids.len() == all && all == count, "{all} clients, {} of them different", ids.len());
    registration.keeps_secrets(&[]).await
}

/// 300 workloads and 3 min shortened by a factor of 4.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_10_keycloak_down() -> Result<()> {
    keycloak_down("client-10", 75, secs(45)).await
}

#[tokio::test]
#[ignore = "long: just e2e-services-long"]
async fn long_client_10_keycloak_down() -> Result<()> {
    keycloak_down("client-10-long", 300, secs(180)).await
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_16_delete_during_outage() -> Result<()> {
    let setup = Setup::new("client-16").proxied().args(["--cleanup-timeout=30s"]);
    let registration = Registration::own(setup).await?;
    let (proxy, ns) = (registration.proxy()?, registration.place("team1").await?);
    registration.registered(&ns, "weather").await?;
    until_credentials(&ns, secs(5), "weather").await?;
    proxy.down();
    let global = registration.global().await?;
    global.delete(kinds::NAMESPACE, "team1").await?;
    global.gone(secs(90), kinds::NAMESPACE, "team1").await?;
    let metrics = registration.component().metrics_text().await?;
    let orphans = exposition::sum(&metrics, "client_registration_orphans_total", &[]);
    ensure!((orphans - 1.0).abs() < f64::EPSILON, "{orphans} orphans");
    let log = registration.component().log();
    let told = log.lines().find(|line| line.contains("team1/weather") && line.contains("orphan"));
    told.context("the log does not name the client that was left")?;
    proxy.heal();
    registration.realm().existing("team1/weather").await.map(drop)
}
