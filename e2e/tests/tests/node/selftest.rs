//! `helm test` of a release that is not well: it fails, and what it prints says why (packaging §15).

use anyhow::{Context as _, Result, ensure};
use e2e::{Json as _, kinds, secs};
use serde_json::{Value, json};

use crate::chart::{Helm, NAMESPACE, RELEASE};
use crate::installed::Turn;
use crate::release;

const CARD_CTL: &str = "kagenti-card-ctl";
/// Name of the webhook's Service.
const SERVICE: &str = "kagenti-operator-kagenti-operator-chart-webhook-service";

/// What `helm test --logs` printed, on both streams.
async fn helm_test(helm: &Helm) -> Result<(bool, String)> {
    let namespace = format!("--namespace={NAMESPACE}");
    let output = helm.attempt(["test", RELEASE, &namespace, "--timeout=2m", "--logs"]).await?;
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Ok((output.status.success(), said.concat()))
}

/// The line of a table that begins so.
fn line<'a>(said: &'a str, mark: &str, check: &str) -> Result<&'a str> {
    said.lines()
        .find(|line| line.strip_prefix(mark).is_some_and(|rest| rest.trim_start().starts_with(check)))
        .with_context(|| format!("no line `{mark} {check}` in:\n{said}"))
}

async fn scale(turn: &Turn, deployment: &str, replicas: i64) -> Result<()> {
    turn.operator.set_spec(kinds::DEPLOYMENT, deployment, json!({"replicas": replicas})).await.map(drop)
}

/// Packaging 22: a component that was scaled to 0 and a webhook without endpoints are each named by the check that fails; before
/// and afterwards every table says `ok`.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn packaging_22_helm_test_says_what_is_wrong() -> Result<()> {
    let turn = Turn::take().await?;
    let helm = Helm::new(&turn.node().built().helm, turn.cluster()).await?;
    let (passed, said) = helm_test(&helm).await?;
    ensure!(passed && !said.contains("FAILED"), "{said}");
    for component in release::COMPONENTS {
        ensure!(said.contains(&format!("POD LOGS: kagenti-{component}-test")), "{component}: {said}");
    }
    line(&said, "ok", "webhook")?;
    let asked = line(&said, "ok", "invalid AgentRuntime")?;
    ensure!(asked.ends_with("refused by the webhook"), "{asked}");
    let service = turn.operator.get(kinds::SERVICE, SERVICE).await?;

    let outcome = sick(&turn, &helm).await;
    // Also for the tests after this one.
    scale(&turn, CARD_CTL, 1).await?;
    let selector = service.pointer("/spec/selector").context("a selector")?;
    turn.operator.set_spec(kinds::SERVICE, SERVICE, json!({"selector": selector})).await?;
    release::until_ready(&turn.operator, secs(120)).await?;
    release::answers(&turn.operator).await?;
    outcome?;
    let (passed, said) = helm_test(&helm).await?;
    ensure!(passed && !said.contains("FAILED"), "{said}");
    Ok(())
}

async fn sick(turn: &Turn, helm: &Helm) -> Result<()> {
    scale(turn, CARD_CTL, 0).await?;
    let none = |pods: &[Value]| pods.is_empty();
    let of = "control-plane=controller-manager,app.kubernetes.io/component=card-ctl";
    turn.operator.until_list(secs(60), kinds::POD, of, "no Pod of card-ctl", none).await?;
    let (passed, said) = helm_test(helm).await?;
    ensure!(!passed, "{said}");
    let why = line(&said, "FAILED", "lease")?;
    ensure!(why.contains("card-ctl.kagenti.dev") && why.contains("scaled to 0"), "{why}");
    ensure!(said.contains("kagenti-card-ctl-test"), "{said}");
    scale(turn, CARD_CTL, 1).await?;

    // A Service whose selector meets nobody.
    let lost = json!({"selector": {"app.kubernetes.io/component": "nobody"}});
    turn.operator.set_spec(kinds::SERVICE, SERVICE, lost).await?;
    let slices = format!("kubernetes.io/service-name={SERVICE}");
    let empty = |slices: &[Value]| slices.iter().all(|slice| slice.items("/endpoints").is_empty());
    turn.operator.until_list(secs(30), kinds::ENDPOINT_SLICE, &slices, "no endpoints", empty).await?;
    let (passed, said) = helm_test(helm).await?;
    ensure!(!passed, "{said}");
    let why = line(&said, "FAILED", "webhook")?;
    ensure!(why.contains(SERVICE), "{why}");
    Ok(())
}
