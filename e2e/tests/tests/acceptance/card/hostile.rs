//! Servers and Services that mean no good.

use std::time::{Duration, Instant};

use anyhow::Result;
use e2e::{AgentServer, Answer, Json as _, kinds, objects, secs};
use serde_json::json;

use super::fixture::{Stage, agent, card, expose};

/// Longest time from the workload to the verdict: one fetch of 10 s and a second for the rest, and the time a
/// Deployment takes to become Available on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// Card scenario 5.
#[tokio::test]
async fn card_05_hostile_server() -> Result<()> {
    let stage = Stage::new("card-05", &[]).await?;
    let cluster = stage.suite.cluster();
    let elsewhere = AgentServer::with_card(cluster, 8000, card("elsewhere"))?;
    let location = format!("Location: http://{}/.well-known/agent-card.json\r\n", elsewhere.address());
    let redirect = AgentServer::start(cluster, 8000, move |_| Answer {
        status: 302,
        headers: location.clone(),
        body: b"SECRET".to_vec(),
    })?;
    let big = AgentServer::start(cluster, 8000, |_| Answer {
        status: 200,
        headers: String::new(),
        body: vec![b' '; 5 * 1024 * 1024],
    })?;
    let packed = AgentServer::start(cluster, 8000, |_| Answer {
        status: 200,
        headers: "Content-Encoding: gzip\r\n".to_owned(),
        body: vec![0x1f; 1000],
    })?;
    let page = AgentServer::start(cluster, 8000, |_| Answer {
        status: 500,
        headers: String::new(),
        body: "SECRET ".repeat(6000).into_bytes(),
    })?;
    let slow = AgentServer::start(cluster, 8000, |_| {
        std::thread::sleep(secs(60));
        Answer::status(200)
    })?;
    let good = AgentServer::with_card(cluster, 8000, card("good"))?;
    let bad = [
        ("redirect", &redirect, "FetchFailed"),
        ("big", &big, "InvalidCard"),
        ("packed", &packed, "FetchFailed"),
        ("page", &page, "FetchFailed"),
        ("slow", &slow, "FetchFailed"),
    ];
    let started = Instant::now();
    for (name, server, _) in bad.iter().copied().chain([("good", &good, "")]) {
        expose(&stage.ns, name, server).await?;
        stage.ns.create(agent(name)).await?;
    }
    stage.until("good-deployment-card", "Synced", "True", "SyncSucceeded").await?;
    for (name, _, reason) in bad {
        let found = stage.until(&format!("{name}-deployment-card"), "Synced", "False", reason).await?;
        let message = found.condition("Synced").message;
        assert!(message.chars().count() <= 1024 && !message.contains("SECRET"), "{name}: {message}");
        assert!(!found.to_string().contains("SECRET"), "{name}");
    }
    assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
    assert!(elsewhere.requests().is_empty(), "nobody follows a redirect");
    Ok(())
}

/// Card scenario 6.
#[tokio::test]
async fn card_06_external_name() -> Result<()> {
    let stage = Stage::new("card-06", &[]).await?;
    let external = objects::named(kinds::SERVICE, "away")
        .spec(json!({"type": "ExternalName", "externalName": "example.org", "ports": [{"port": 80}]}));
    stage.ns.create(external).await?;
    stage.ns.create(agent("away")).await?;
    stage.until("away-deployment-card", "Synced", "False", "ForbiddenTarget").await?;
    Ok(())
}

/// Card scenario 6: an address that must not be dialled.
#[tokio::test]
async fn card_06_denied_address() -> Result<()> {
    let stage = Stage::new("card-06-denied", &["--fetch-deny-cidrs=10.0.0.0/8"]).await?;
    let server = stage.agent_server("echo", card("echo")).await?;
    stage.ns.create(agent("echo")).await?;
    stage.until("echo-deployment-card", "Synced", "False", "ForbiddenTarget").await?;
    assert!(server.requests().is_empty());
    Ok(())
}
