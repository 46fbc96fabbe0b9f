//! Where and how cards are fetched.

use anyhow::Result;
use e2e::{AgentServer, Answer, Json as _, kinds, secs};
use serde_json::{Value, json};

use super::fixture::{Stage, agent, card, expose, expose_ports};

const CARD: &str = "echo-deployment-card";
const PRESENT: &str = "/.well-known/agent-card.json";
const LEGACY: &str = "/.well-known/agent.json";

/// Card scenario 2.
#[tokio::test]
async fn card_02_fetch() -> Result<()> {
    let stage = Stage::new("card-02", &[]).await?;
    let server = stage.agent_server("echo", card("echo")).await?;
    stage.ns.create(agent("echo")).await?;
    let synced = stage.until(CARD, "Synced", "True", "SyncSucceeded").await?;
    let status = &synced["status"];
    assert_eq!(status.text("/card/name"), "echo");
    assert_eq!(status.text("/card/skills/0/id"), "echo");
    assert_eq!(status.text("/card/url"), "http://echo.card-02.svc.cluster.local:8000");
    assert_eq!(status.text("/advertisedURL"), "http://localhost:9999/");
    assert_eq!(status.text("/protocol"), "a2a");
    assert_eq!(status.text("/cardSource"), "HTTP");
    assert_eq!(status.text("/targetRef/name"), "echo");
    assert_eq!(status.text("/cardId").len(), 64);
    let ready = synced.condition("Ready");
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "ReadyToServe"));
    assert_eq!(server.requests(), [PRESENT]);
    let table = stage.suite.cluster().kubectl(["-n", "card-02", "get", "cards", "-o", "wide"]).await?;
    let header: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    let columns = [
        "NAME",
        "PROTOCOL",
        "KIND",
        "TARGET",
        "AGENT",
        "VERIFIED",
        "SIGSTORE",
        "BOUND",
        "SYNCED",
        "LASTSYNC",
        "AGE",
        "ATTESTEDAGENT",
    ];
    assert_eq!(header, columns);
    let row = table.lines().nth(1).unwrap_or_default();
    assert!(row.contains("a2a") && row.contains("Deployment") && row.contains("True"), "{row}");
    Ok(())
}

/// Card scenario 3.
#[tokio::test]
async fn card_03_legacy_path() -> Result<()> {
    let stage = Stage::new("card-03", &[]).await?;
    let old = AgentServer::start(stage.suite.cluster(), 8000, |path| match path {
        LEGACY => Answer::json(&card("old")),
        _ => Answer::status(404),
    })?;
    expose(&stage.ns, "old", &old).await?;
    let broken = AgentServer::start(stage.suite.cluster(), 8000, |path| match path {
        LEGACY => Answer::json(&card("broken")),
        _ => Answer::status(500),
    })?;
    expose(&stage.ns, "broken", &broken).await?;
    stage.ns.create(agent("old")).await?;
    stage.ns.create(agent("broken")).await?;
    stage.until("old-deployment-card", "Synced", "True", "SyncSucceeded").await?;
    assert_eq!(old.requests(), [PRESENT, LEGACY]);
    let failed = stage.until("broken-deployment-card", "Synced", "False", "FetchFailed").await?;
    assert!(failed.condition("Synced").message.contains("500"), "{failed}");
    assert_eq!(broken.requests(), [PRESENT], "the second path is for 404 only");
    Ok(())
}

/// Card scenario 4.
#[tokio::test]
async fn card_04_port_choice() -> Result<()> {
    let stage = Stage::new("card-04", &[]).await?;
    let server = AgentServer::with_card(stage.suite.cluster(), 8000, card("echo"))?;
    let ports = json!([
        {"name": "metrics", "port": 9090}, {"name": "agent-tls", "port": 8443}, {"name": "a2a", "port": 8000},
    ]);
    expose_ports(&stage.ns, "echo", &server, ports).await?;
    stage.ns.create(agent("echo")).await?;
    stage.until(CARD, "Synced", "True", "SyncSucceeded").await?;
    let url = |port: u16| format!("http://echo.card-04.svc.cluster.local:{port}");
    for (annotation, port) in [(Value::Null, 8000), (json!("9999"), 9999), (json!("abc"), 8000)] {
        stage.ns.annotate(kinds::SERVICE, "echo", json!({"kagenti.io/port": annotation})).await?;
        let wanted = url(port);
        let what = format!("the address {wanted}");
        stage
            .ns
            .until(secs(10), kinds::AGENT_CARD, CARD, &what, |card| card.text("/status/card/url") == wanted)
            .await?;
    }
    Ok(())
}
