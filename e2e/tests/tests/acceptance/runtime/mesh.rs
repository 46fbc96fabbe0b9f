//! Scenario 15: the Istio ambient mesh.

use anyhow::Result;
use api_types::names::{annotation, condition, label};
use e2e::{Json as _, Suite, kinds, objects};
use serde_json::{Value, json};

use super::WITHIN;

fn meshed(namespace: &Value) -> bool {
    namespace.label(label::ISTIO_DISCOVERY) == Some("enabled")
        && namespace.label(label::ISTIO_DATAPLANE_MODE) == Some("ambient")
}

#[tokio::test]
async fn runtime_15_mesh() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-15", json!({"example.com/kept": "yes"})).await?;
    let global = suite.global().await?;
    ns.create(objects::deployment("meshed")).await?;
    ns.create(objects::agent_runtime("meshed", "meshed")).await?;
    let namespace = global.until(WITHIN, kinds::NAMESPACE, "runtime-15", "both labels", meshed).await?;
    assert_eq!(namespace.label("example.com/kept"), Some("yes"));
    let runtime =
        ns.until_condition(WITHIN, "meshed", condition::ISTIO_MESH_ENROLLED, "True/NamespaceLabeled").await?;
    assert_eq!(
        runtime.condition(condition::ISTIO_MESH_ENROLLED).message,
        "Namespace runtime-15 enrolled in Istio ambient mesh"
    );
    let event = ns.until_event(WITHIN, "meshed", "IstioMeshEnrolled").await?;
    assert_eq!(event.text("/note"), "Namespace runtime-15 labeled for Istio ambient mesh");

    let gone = json!({label::ISTIO_DISCOVERY: null, label::ISTIO_DATAPLANE_MODE: null});
    global.set_labels(kinds::NAMESPACE, "runtime-15", gone).await?;
    global.until(WITHIN, kinds::NAMESPACE, "runtime-15", "both labels again", meshed).await?;

    ns.delete(kinds::AGENT_RUNTIME, "meshed").await?;
    ns.gone(WITHIN, kinds::AGENT_RUNTIME, "meshed").await?;
    assert!(meshed(&global.get(kinds::NAMESPACE, "runtime-15").await?), "the labels stay");
    Ok(())
}

#[tokio::test]
async fn runtime_15_opted_out() -> Result<()> {
    let suite = Suite::shared().await?;
    let global = suite.global().await?;
    let namespace =
        objects::named(kinds::NAMESPACE, "runtime-15-out").annotation(annotation::ISTIO_MESH, "disabled");
    global.create(namespace).await?;
    let ns = global.other("runtime-15-out");
    ns.create(objects::deployment("alone")).await?;
    ns.create(objects::agent_runtime("alone", "alone")).await?;
    ns.until_condition(WITHIN, "alone", condition::ISTIO_MESH_ENROLLED, "False/OptedOut").await?;
    ns.until_ready(WITHIN, "alone").await?;
    let namespace = global.get(kinds::NAMESPACE, "runtime-15-out").await?;
    assert_eq!(namespace.label(label::ISTIO_DISCOVERY), None);
    assert_eq!(namespace.label(label::ISTIO_DATAPLANE_MODE), None);

    // §10: back in, then out again: labels that we put there go.
    global.annotate(kinds::NAMESPACE, "runtime-15-out", json!({annotation::ISTIO_MESH: null})).await?;
    global.until(WITHIN, kinds::NAMESPACE, "runtime-15-out", "both labels", meshed).await?;
    global.annotate(kinds::NAMESPACE, "runtime-15-out", json!({annotation::ISTIO_MESH: "disabled"})).await?;
    global
        .until(WITHIN, kinds::NAMESPACE, "runtime-15-out", "our labels to go", |namespace| {
            namespace.label(label::ISTIO_DISCOVERY).is_none()
                && namespace.label(label::ISTIO_DATAPLANE_MODE).is_none()
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn runtime_15_conflicting_label() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("runtime-15-none", json!({label::ISTIO_DATAPLANE_MODE: "none"})).await?;
    ns.create(objects::deployment("kept")).await?;
    ns.create(objects::agent_runtime("kept", "kept")).await?;
    ns.until_condition(WITHIN, "kept", condition::ISTIO_MESH_ENROLLED, "False/ConflictingLabel").await?;
    ns.until_ready(WITHIN, "kept").await?;
    let namespace = suite.global().await?.get(kinds::NAMESPACE, "runtime-15-none").await?;
    assert_eq!(namespace.label(label::ISTIO_DATAPLANE_MODE), Some("none"));
    Ok(())
}
