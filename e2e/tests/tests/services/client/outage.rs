//! Scenarios 10 and 16: Keycloak is down.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::exposition;
use e2e::json::Json as _;
use e2e::services::agents::{account, agent, credentials_secret};
use e2e::services::registration::{Registration, Setup};
use e2e::services::without_pods;
use e2e::{Ns, kinds, objects, secs, wait_for};
use serde_json::Value;

/// Keycloak is down for `outage` with `count` eligible workloads, which have `recovery` to get on afterwards.
async fn keycloak_down(
    realm: &'static str,
    count: usize,
    outage: Duration,
    recovery: Duration,
) -> Result<()> {
    let registration = Registration::own(Setup::new(realm).suite(without_pods()).proxied()).await?;
    let (proxy, ns) = (registration.proxy()?, registration.place("team1").await?);
    proxy.down();
    let (mark, since) = (proxy.mark(), Instant::now());
    for number in 0..count {
        ns.create(agent(&format!("agent-{number}")).replicas(0)).await?;
    }
    ns.create(objects::agent_runtime("agent-0", "agent-0")).await?;
    registration.until_registered(&ns, outage, "agent-0", "False/KeycloakUnavailable").await?;
    tokio::time::sleep(outage.saturating_sub(since.elapsed())).await;
    let (calls, lasted) = (proxy.since(mark).len(), since.elapsed());
    ensure!(calls > 0 && calls as f64 / lasted.as_secs_f64() < 2.0, "{calls} calls in {lasted:?}");
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
    wait_for(recovery, "every agent to be registered", async || {
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

/// 300 workloads, 3 min and 5 min shortened by a factor of 6.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_10_keycloak_down() -> Result<()> {
    keycloak_down("client-10", 50, secs(30), secs(50)).await
}

#[tokio::test]
#[ignore = "long: just e2e-services-long"]
async fn long_client_10_keycloak_down() -> Result<()> {
    keycloak_down("client-10-long", 300, secs(180), secs(300)).await
}

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_16_delete_during_outage() -> Result<()> {
    let setup = Setup::new("client-16").suite(without_pods()).proxied().args(["--cleanup-timeout=30s"]);
    let registration = Registration::own(setup).await?;
    let (proxy, ns) = (registration.proxy()?, registration.place("team1").await?);
    registration.registered(&ns, "weather").await?;
    registration.until_registered(&ns, secs(20), "weather", "True/Registered").await?;
    proxy.down();
    let global = registration.global().await?;
    global.delete(kinds::NAMESPACE, "team1").await?;
    global.gone(secs(90), kinds::NAMESPACE, "team1").await?;
    let metrics = registration.component().metrics_text().await?;
    let orphans = exposition::sum(&metrics, "client_registration_orphans_total", &[]);
    ensure!((orphans - 1.0).abs() < f64::EPSILON, "{orphans} orphans");
    let log = registration.component().log();
    let told = log.lines().find(|line| line.contains("\"team1/weather\"") && line.contains("an orphan"));
    told.context("the log does not name the client that was left")?;
    proxy.heal();
    registration.realm().existing("team1/weather").await.map(drop)
}

/// The workload alone is deleted, and Keycloak comes back in time: the AgentRuntime says what is waited for, and nothing
/// is left behind.
#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn client_fault_agent_deleted_during_outage() -> Result<()> {
    let registration = Registration::own(Setup::new("client-away").suite(without_pods()).proxied()).await?;
    let (proxy, ns) = (registration.proxy()?, registration.place("team1").await?);
    registration.registered(&ns, "weather").await?;
    registration.until_registered(&ns, secs(20), "weather", "True/Registered").await?;
    proxy.down();
    ns.delete(kinds::DEPLOYMENT, "weather").await?;
    let runtime = registration.until_registered(&ns, secs(30), "weather", "False/CleanupPending").await?;
    let message = runtime.condition("ClientRegistered").message;
    ensure!(message.contains("--cleanup-timeout (600 s)") && message.contains("cannot"), "{message}");
    let secret = credentials_secret(&ns, "weather").await?.context("the Secret waits")?;
    ensure!(!secret.text("/metadata/deletionTimestamp").is_empty(), "{}", secret.name());
    ensure!(secret.texts("/metadata/finalizers") == ["kagenti.io/keycloak-client"], "{}", secret.name());
    proxy.heal();
    ns.gone(secs(60), kinds::SECRET, secret.name()).await?;
    ensure!(registration.realm().client("team1/weather").await?.is_none());
    ensure!(registration.realm().scope("agent-team1-weather-aud").await?.is_none());
    let silent = |object: &Value| object.condition("ClientRegistered").status.is_empty();
    ns.until(secs(10), kinds::AGENT_RUNTIME, "weather", "no condition", silent).await?;
    let metrics = registration.component().metrics_text().await?;
    let orphans = exposition::sum(&metrics, "client_registration_orphans_total", &[]);
    ensure!(orphans.abs() < f64::EPSILON, "{orphans} orphans");
    Ok(())
}
