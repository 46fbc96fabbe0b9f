//! Scenarios of the runtime chapter.

mod bare;
mod bootstrap;
mod config;
mod duplicates;
mod enrol;
mod failover;
mod idle;
mod mesh;
mod namespaced;
mod openshift;
mod rules;
mod sandbox;
mod scale;
mod skills;
mod spec_changes;
mod targets;
mod tls_bridge;
mod unenroll;
mod webhook_down;
mod withdraw;

use anyhow::{Context as _, Result, ensure};
use api_types::names::{MANAGED_BY_OPERATOR, annotation, condition, finalizer, label};
use e2e::{Json as _, Ns};
use serde_json::Value;

/// How long an enrolment may take, counted from the API call.
const WITHIN: std::time::Duration = std::time::Duration::from_secs(5);
/// How long the controllers of Kubernetes may take for a rollout on a busy machine; nobody promises this one.
const ROLLOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// The configuration hash on a workload's pod template.
fn config_hash(workload: &Value) -> Result<String> {
    let hash =
        workload.template_annotation(annotation::CONFIG_HASH).context("no config-hash on the template")?;
    ensure!(
        hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase()),
        "config-hash {hash:?} is not 64 lowercase hex digits"
    );
    Ok(hash.to_owned())
}

/// What enrolment puts on a workload (scenario 1).
fn assert_enrolled(workload: &Value, kind: &str, mtls: &str, runtime: &str) -> Result<()> {
    assert_eq!(workload.label(label::TYPE), Some(kind));
    assert_eq!(workload.annotation(annotation::ENROLLED_BY), Some(runtime));
    assert_eq!(workload.template_label(label::TYPE), Some(kind));
    assert_eq!(workload.template_label(label::ENROLLED), Some("true"));
    assert_eq!(workload.template_annotation(annotation::MTLS_MODE), Some(mtls));
    config_hash(workload).map(drop)
}

/// What un-enrolment leaves of it: nothing.
fn assert_clean(workload: &Value) {
    assert_eq!(workload.label(label::TYPE), None);
    assert_ne!(workload.label(label::MANAGED_BY), Some(MANAGED_BY_OPERATOR));
    for name in [annotation::ENROLLED_BY, annotation::CONFIG_HASH_ADOPTED] {
        assert_eq!(workload.annotation(name), None, "{name}");
    }
    for name in [label::TYPE, label::ENROLLED] {
        assert_eq!(workload.template_label(name), None, "{name} on the template");
    }
    for name in [annotation::CONFIG_HASH, annotation::MTLS_MODE, annotation::RUNTIME_GENERATION] {
        assert_eq!(workload.template_annotation(name), None, "{name} on the template");
    }
}

/// What an enrolled AgentRuntime says of itself (scenario 1).
fn assert_active(runtime: &Value) {
    assert!(runtime.texts("/metadata/finalizers").contains(&finalizer::CLEANUP), "{}", runtime.readable());
    assert_eq!(runtime.condition(condition::TARGET_RESOLVED).short(), "True/TargetFound");
    assert_eq!(runtime.condition(condition::CONFIG_RESOLVED).status, "True");
    assert_eq!(runtime.condition(condition::READY).short(), "True/Configured");
    assert_eq!(runtime.text("/status/phase"), "Active");
    assert_eq!(runtime.number("/status/observedGeneration"), Some(runtime.generation()));
    for item in runtime.items("/status/conditions") {
        assert_eq!(item.number("/observedGeneration"), Some(runtime.generation()), "{item}");
    }
}

/// Number of rollouts of a Deployment so far, the first one included.
fn revision(deployment: &Value) -> Result<i64> {
    let text = deployment.annotation("deployment.kubernetes.io/revision").context("no revision yet")?;
    text.parse().context("a revision")
}

/// A Deployment of one replica with an AgentRuntime of the same name, both settled.
async fn enrolled(ns: &Ns, name: &str) -> Result<Value> {
    use e2e::{kinds, objects};
    ns.create(objects::deployment(name)).await?;
    ns.create(objects::agent_runtime(name, name)).await?;
    ns.until_ready(WITHIN, name).await?;
    settled(ns, kinds::DEPLOYMENT, name).await
}

/// The workload after its rollout has ended and the AgentRuntime of the same name has seen it.
async fn settled(ns: &Ns, kind: e2e::kinds::Kind, name: &str) -> Result<Value> {
    ns.rolled_out(ROLLOUT, kind, name).await?;
    ns.until_condition(ROLLOUT, name, condition::PODS_CONFIGURED, "True/RolloutComplete").await?;
    ns.rolled_out(ROLLOUT, kind, name).await
}

/// Waits until nobody has written an object for so long: Kubernetes' own controllers write it once more a moment after
/// what a test waits for.
pub(crate) async fn at_rest(
    ns: &Ns,
    time: std::time::Duration,
    kind: e2e::kinds::Kind,
    name: &str,
) -> Result<Value> {
    let what = format!("{} {name} to stay as it is for {time:?}", kind.kind);
    e2e::wait_for(ROLLOUT, &what, async || ns.stays(time, kind, name).await.map(Some)).await
}
