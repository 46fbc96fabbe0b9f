//! `--verified-label-mode=pods` (card §11.2): the label follows the verdict without touching the pod template.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{Json as _, kinds, objects, secs};
use serde_json::{Value, json};

use super::fixture::{Stage, agent};
use super::trust::{CARD, checking, sign, signed};

const LABEL: &str = "agent.kagenti.dev/signature-verified";
const STATE: &str = "verified-state.agent.kagenti.dev/echo-deployment-card";
/// The rule says five seconds; a busy machine may take longer for what takes one.
const LIMIT: Duration = secs(30);

/// Two replicas whose old Pods stay until the new ones are ready, labelled as agents as runtime-ctl does.
fn workload() -> objects::Object {
    agent("echo").replicas(2).template_label("kagenti.io/type", "agent").spec(json!({
        "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
    }))
}

fn labelled(pod: &Value) -> bool {
    pod.label(LABEL) == Some("true")
}

fn running(pod: &Value) -> bool {
    pod.text("/status/phase") == "Running"
}

fn present(pods: &[Value]) -> Vec<&Value> {
    pods.iter().filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none()).collect()
}

/// Waits until there are so many running Pods, and all or none of them labelled.
async fn until_pods(stage: &Stage, count: usize, label: bool) -> Result<Vec<Value>> {
    let what = format!("{count} running Pods, labelled: {label}");
    stage
        .ns
        .until_list(LIMIT, kinds::POD, "app=echo", &what, |pods| {
            let pods = present(pods);
            pods.len() == count && pods.iter().all(|pod| running(pod) && labelled(pod) == label)
        })
        .await
        .with_context(|| stage.process.log_tail())
}

async fn template_hash(stage: &Stage) -> Result<String> {
    let card = stage.ns.get(kinds::AGENT_CARD, CARD).await?;
    Ok(card.text("/status/verifiedTemplateHash").to_owned())
}

/// Pods get the label when their template was verified, lose it with the verdict, and are never replaced for it.
#[tokio::test]
async fn card_label_mode_pods() -> Result<()> {
    let stage = checking("card-pods", &["--verified-label-mode=pods"]).await?;
    let ns = &stage.ns;
    signed(&stage, workload(), "es256-legacy").await?;
    stage.until(CARD, "Verified", "True", "SignatureVerified").await?;
    let pods = until_pods(&stage, 2, true).await?;
    let uids = |pods: &[Value]| {
        let mut uids: Vec<String> = present(pods).iter().map(|pod| pod.uid().to_owned()).collect();
        uids.sort_unstable();
        uids
    };
    let born = uids(&pods);
    let marked = |object: &Value| object.annotation(STATE) == Some("true");
    let deployment = ns.until(LIMIT, kinds::DEPLOYMENT, "echo", "the annotation", marked).await?;
    assert_eq!(deployment.template_label(LABEL), None, "the template is not touched");
    let first = template_hash(&stage).await?;
    ensure!(first.len() == 64 && first.chars().all(|c| c.is_ascii_hexdigit()), "{first:?}");

    // A further Pod of the same template is as good as the others.
    ns.set_spec(kinds::DEPLOYMENT, "echo", json!({"replicas": 3})).await?;
    let three = until_pods(&stage, 3, true).await?;
    ensure!(born.iter().all(|uid| uids(&three).contains(uid)), "no Pod is replaced");

    // Another template, whose first Pod finds no node: it is not labelled, and the others keep what they have.
    let stuck = json!({"template": {"spec": {"nodeSelector": {"example.com/none": "true"}}}});
    ns.set_spec(kinds::DEPLOYMENT, "echo", stuck).await?;
    let waiting = |pods: &[Value]| present(pods).iter().any(|pod| pod.text("/status/phase") == "Pending");
    ns.until_list(LIMIT, kinds::POD, "app=echo", "a Pod that waits", waiting).await?;
    let started = tokio::time::Instant::now();
    while started.elapsed() < secs(6) {
        // Three periods: the present template is looked at, but it does not run everywhere.
        let pods = ns.list(kinds::POD, "app=echo").await?;
        for pod in present(&pods) {
            assert_eq!(labelled(pod), running(pod), "{}", pod.readable());
        }
        assert_eq!(template_hash(&stage).await?, first);
        tokio::time::sleep(secs(1)).await;
    }
    let free = json!({"template": {"spec": {"nodeSelector": null, "terminationGracePeriodSeconds": 7}}});
    ns.set_spec(kinds::DEPLOYMENT, "echo", free).await?;
    ns.rolled_out(secs(60), kinds::DEPLOYMENT, "echo").await?;
    let renewed = until_pods(&stage, 3, true).await?;
    ensure!(!uids(&renewed).iter().any(|uid| born.contains(uid)), "all Pods are of the new template");
    ensure!(template_hash(&stage).await? != first);

    // The verdict is lost: no Pod keeps the label, and none is replaced.
    sign(&stage, "tampered-payload").await?;
    stage.until(CARD, "Verified", "False", "SignatureInvalid").await?;
    let lost = until_pods(&stage, 3, false).await?;
    assert_eq!(uids(&lost), uids(&renewed));
    sign(&stage, "es256-legacy").await?;
    stage.until(CARD, "Verified", "True", "SignatureVerified").await?;
    until_pods(&stage, 3, true).await?;

    // A workload that is no agent any more (card §11.3).
    ns.set_labels(kinds::DEPLOYMENT, "echo", json!({"kagenti.io/type": null})).await?;
    let released = until_pods(&stage, 3, false).await?;
    assert_eq!(uids(&released), uids(&renewed));
    let deployment = ns
        .until(LIMIT, kinds::DEPLOYMENT, "echo", "no annotation", |object| object.annotation(STATE).is_none())
        .await?;
    assert_eq!(deployment.template_label(LABEL), None);
    assert_eq!(
        ns.replica_sets("echo").await?.len(),
        3,
        "one for each template of the user, none for a label"
    );
    Ok(())
}

/// A label that template mode left behind: it stays while the verdict is good, and goes, once, with a bad one.
#[tokio::test]
async fn card_label_mode_pods_after_template_mode() -> Result<()> {
    let stage = checking("card-pods-after", &["--verified-label-mode=pods"]).await?;
    let ns = &stage.ns;
    signed(&stage, workload().template_label(LABEL, "true"), "es256-legacy").await?;
    stage.until(CARD, "Verified", "True", "SignatureVerified").await?;
    let marked = |object: &Value| object.annotation(STATE) == Some("true");
    let deployment = ns.until(LIMIT, kinds::DEPLOYMENT, "echo", "the annotation", marked).await?;
    assert_eq!(deployment.template_label(LABEL), Some("true"));
    assert_eq!(ns.replica_sets("echo").await?.len(), 1);
    sign(&stage, "tampered-payload").await?;
    let gone = |object: &Value| object.template_label(LABEL).is_none();
    ns.until(LIMIT, kinds::DEPLOYMENT, "echo", "a template without label", gone).await?;
    until_pods(&stage, 2, false).await?;
    sign(&stage, "es256-legacy").await?;
    stage.until(CARD, "Verified", "True", "SignatureVerified").await?;
    until_pods(&stage, 2, true).await?;
    assert_eq!(ns.replica_sets("echo").await?.len(), 2, "the label left the template once");
    Ok(())
}
