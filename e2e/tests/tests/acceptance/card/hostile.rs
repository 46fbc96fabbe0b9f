//! Servers and Services that mean no good.

use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::{AgentServer, Answer, Json as _, Stopwatch, kinds, objects, secs};
use futures::future::try_join_all;
use serde_json::json;

use super::fixture::{Stage, agent, card, expose};

/// Longest time from the first request to the verdict: 11 s (one fetch of 10 s and a second for the rest), and two for a
/// busy machine to notice.
const LIMIT: Duration = Duration::from_secs(13);
/// How long a busy cluster may take to make a Deployment Available.
const AVAILABLE: Duration = Duration::from_secs(60);

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
    for (name, server, _) in bad.iter().copied().chain([("good", &good, "")]) {
        expose(&stage.ns, name, server).await?;
        stage.ns.create(agent(name)).await?;
    }
    let verdicts = bad.map(|(name, server, reason)| refused(&stage, name, server, reason));
    let well = stage.until("good-deployment-card", "Synced", "True", "SyncSucceeded");
    tokio::try_join!(try_join_all(verdicts), well)?;
    assert!(elsewhere.requests().is_empty(), "nobody follows a redirect");
    Ok(())
}

/// The verdict on a server that means no good: in time, short, and without a word of its answer.
async fn refused(stage: &Stage, name: &str, server: &AgentServer, reason: &str) -> Result<()> {
    let card = format!("{name}-deployment-card");
    let watch = Stopwatch::start();
    let found = stage
        .ns
        .until(AVAILABLE, kinds::AGENT_CARD, &card, &format!("Synced=False/{reason}"), |object| {
            let synced = object.condition("Synced");
            synced.status == "False" && synced.reason == reason
        })
        .await?;
    let first = server.seen().first().map(|request| request.at).context("a request")?;
    let took = watch.less_stalls(first.elapsed());
    assert!(took < LIMIT, "{name}: {took:?}");
    let message = found.condition("Synced").message;
    assert!(message.chars().count() <= 1024 && !message.contains("SECRET"), "{name}: {message}");
    assert!(!found.to_string().contains("SECRET"), "{name}");
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
