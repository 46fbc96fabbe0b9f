//! §8.2: a Sandbox is restarted in two phases, because its own controller does not do it. The test is that controller.

use anyhow::Result;
use api_types::names::{annotation, condition, label};
use e2e::kinds::Kind;
use e2e::{Json as _, Ns, Options, Suite, kinds, objects, secs, suite};
use serde_json::{Value, json};

use super::WITHIN;

fn sandbox(kind: Kind, name: &str, running: bool) -> objects::Object {
    let run = if kind == kinds::SANDBOX {
        json!({"operatingMode": if running { "Running" } else { "Suspended" }})
    } else {
        json!({"replicas": i32::from(running)})
    };
    objects::named(kind, name)
        .spec(json!({"podTemplate": {"spec": {"containers": [objects::container(8000)]}}}))
        .spec(run)
}

fn runs(sandbox: &Value) -> bool {
    match sandbox.pointer("/spec/operatingMode").and_then(Value::as_str) {
        Some(mode) => mode == "Running",
        None => sandbox.number("/spec/replicas") == Some(1),
    }
}

/// What the sandbox controller does for a running Sandbox.
async fn pod_of(ns: &Ns, kind: Kind, name: &str) -> Result<()> {
    let sandbox = ns.get(kind, name).await?;
    let template = sandbox.template();
    let pod = objects::pod(name).with(json!({"metadata": {
        "labels": template.pointer("/metadata/labels").cloned().unwrap_or(json!({})),
        "annotations": template.pointer("/metadata/annotations").cloned().unwrap_or(json!({})),
        "ownerReferences": [{
            "apiVersion": kind.api_version(), "kind": "Sandbox", "name": name, "uid": sandbox.uid(), "controller": true,
        }],
    }}));
    ns.create(pod).await?;
    ns.annotate(kind, name, json!({annotation::SANDBOX_POD_NAME: name})).await?;
    ns.until(secs(20), kinds::POD, name, "the Pod to run", |pod| pod.text("/status/phase") == "Running")
        .await?;
    Ok(())
}

/// Plays both halves of one restart.
async fn restarted(ns: &Ns, kind: Kind, name: &str, runtime: Option<&str>) -> Result<Value> {
    ns.until(WITHIN, kind, name, "phase 1", |sandbox| {
        !runs(sandbox) && sandbox.annotation(annotation::RESTART_PENDING) == Some("true")
    })
    .await?;
    if let Some(runtime) = runtime {
        ns.until_condition(WITHIN, runtime, condition::READY, "Unknown/SandboxRestarting").await?;
    }
    ns.delete(kinds::POD, name).await?;
    ns.gone(secs(20), kinds::POD, name).await?;
    ns.until(secs(10), kind, name, "phase 2", |sandbox| {
        runs(sandbox)
            && sandbox.annotation(annotation::RESTART_PENDING).is_none()
            && sandbox.annotation(annotation::SANDBOX_POD_NAME).is_none()
    })
    .await
}

async fn restart(version: &str, kind: Kind) -> Result<()> {
    let crd = suite::sandbox_crd(version)?;
    let suite = Suite::own(Options::default().without_webhook().object("", crd)).await?;
    let ns = suite.namespace("sandboxes", Value::Null).await?;
    ns.create(sandbox(kind, "box", true)).await?;
    pod_of(&ns, kind, "box").await?;
    let target = json!({"targetRef": {"apiVersion": kind.api_version(), "kind": "Sandbox"}});
    ns.create(objects::agent_runtime("box", "box").spec(target.clone())).await?;
    let live = restarted(&ns, kind, "box", Some("box")).await?;
    assert_eq!(live.template_label(label::TYPE), Some("agent"));
    assert_eq!(live.template_label(label::ENROLLED), Some("true"));
    assert!(live.template_annotation(annotation::CONFIG_HASH).is_some());
    pod_of(&ns, kind, "box").await?;
    ns.until_ready(secs(10), "box").await?;
    let event = ns.until_event(WITHIN, "box", "SandboxRestarted").await?;
    assert_eq!(event.text("/note"), "Sandbox box restarted via scale 0→1");
    ns.until(WITHIN, kinds::AGENT_RUNTIME, "box", "one configured Pod", |runtime| {
        runtime.number("/status/configuredPods") == Some(1)
    })
    .await?;

    // One that its user suspended takes the template and sleeps on.
    ns.create(sandbox(kind, "asleep", false)).await?;
    ns.create(objects::agent_runtime("asleep", "asleep").spec(target)).await?;
    ns.until_ready(WITHIN, "asleep").await?;
    let asleep = ns.stays(secs(5), kind, "asleep").await?;
    assert!(
        !runs(&asleep) && asleep.annotation(annotation::RESTART_PENDING).is_none(),
        "{}",
        asleep.readable()
    );
    assert_eq!(asleep.template_label(label::ENROLLED), Some("true"));

    // Un-enrolment restarts too, and the finalizer waits for phase 2.
    ns.delete(kinds::AGENT_RUNTIME, "box").await?;
    let live = restarted(&ns, kind, "box", None).await?;
    ns.gone(secs(10), kinds::AGENT_RUNTIME, "box").await?;
    assert_eq!(live.template_label(label::ENROLLED), None);
    assert!(runs(&ns.get(kind, "box").await?), "never left at zero");
    Ok(())
}

#[tokio::test]
async fn runtime_sandbox_restart() -> Result<()> {
    restart("v1beta1", kinds::SANDBOX).await
}

#[tokio::test]
async fn runtime_sandbox_restart_alpha() -> Result<()> {
    restart("v1alpha1", kinds::SANDBOX_ALPHA).await
}
