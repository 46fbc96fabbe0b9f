//! `cargo demo --full`: the same servers once more, started by the demo itself.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use local_cluster::{Profile, components};

/// Longest time on a busy machine; 40 s on one that is not.
const LIMIT: Duration = Duration::from_mins(10);

/// Every statement that the demo makes about the chain.
const STATEMENTS: [&str; 14] = [
    "AgentRuntime weather-agent-runtime is Active",
    "its client is registered, and the audience scope attached",
    "its experiment is configured",
    "AgentCard weather-agent-deployment-card holds the card that the agent serves",
    "realm kagenti has client default/weather-agent, and it is confidential",
    "audience scope agent-default-weather-agent-aud is one of its default scopes",
    "the credentials log in at the realm's token endpoint",
    "the token is signed by the realm, not expired, and for default/weather-agent, as the sidecar demands",
    "a second agent, news-agent, gets credentials of its own",
    "with the secret of news-agent nobody logs in as weather-agent",
    "a token of news-agent is none for weather-agent",
    "MLflow has experiment default/weather-agent, under the injected id",
    "the mlflow client logs a run there, with nothing but these variables",
    "one Pod runs, with the AuthBridge sidecar beside the agent",
];

#[tokio::test]
#[ignore = "services: just e2e-services"]
async fn demo_full_is_true_and_keeps_secrets() -> Result<()> {
    let built = tokio::task::spawn_blocking(|| components::build(&["demo"], Profile::Same));
    let demo = built.await.context("building the demo")??.path("demo")?.to_owned();
    let started = Instant::now();
    let mut command = tokio::process::Command::new(demo);
    command.args(["--full", "--once"]).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.context("it never ends")??;
    eprintln!("cargo demo --full --once took {:.1} s", started.elapsed().as_secs_f64());
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}\n{out}\n{err}", output.status);
    for statement in STATEMENTS {
        ensure!(out.contains(&format!("✓ {statement}")), "{statement:?} is missing in\n{out}");
    }
    ensure!(!out.contains('✗') && !out.contains('\u{1b}') && !err.contains('\u{1b}'), "{out}\n{err}");
    // Passwords and client secrets have 32 letters and digits, tokens begin with a header in base64.
    for word in out.split(|c: char| !c.is_ascii_alphanumeric()).chain(err.split_whitespace()) {
        ensure!(word.len() != 32 && !word.starts_with("eyJ"), "this looks like a secret: {word}");
    }
    Ok(())
}
