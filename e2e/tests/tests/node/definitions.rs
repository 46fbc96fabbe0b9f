//! Definitions of others, definitions of an older release, and definitions alone (packaging §5).

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use e2e::kinds::{self, Kind};
use e2e::{Json as _, Ns, objects, secs};
use serde_json::{Map, Value, json};

use crate::chart::{Helm, NAMESPACE, RELEASE};
use crate::node::RealNode;
use crate::release::{COMPONENTS, component_chart, helm_run, pods, readyz, until_ready};

/// A kind of somebody else, whose definition one of our charts may bring some day.
const FOREIGN: Kind = kinds::MODEL_CONFIG;
/// Definitions of group agent.kagenti.dev.
const OURS: [Kind; 3] = [kinds::AGENT_RUNTIME, kinds::AGENT_CARD, kinds::AUTHORIZATION_POLICY];
/// A field that the previous operator did not have.
const NEW_FIELD: &str =
    "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/inboundInterception";

fn name_of(kind: Kind) -> String {
    format!("{}.{}", kind.plural, kind.group)
}

/// Removes keys at every depth.
fn without(value: &mut Value, keys: &[&str]) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !keys.contains(&key.as_str()));
            map.values_mut().for_each(|value| without(value, keys));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| without(value, keys)),
        _ => {}
    }
}

/// The definitions as the previous operator had them: made by another generator, without rules, and without what came later.
fn older(helm: &Helm) -> Result<Vec<Value>> {
    let dir = helm.chart().with_file_name("kagenti-crds-agent").join("crds");
    let mut found = Vec::new();
    for kind in OURS {
        let path = dir.join(format!("{}_{}.yaml", kind.group, kind.plural));
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let mut crd: Value =
            serde_saphyr::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        without(
            &mut crd,
            &["x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"],
        );
        if let Some(spec) =
            crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties")
        {
            spec.as_object_mut().map(|map| map.remove("inboundInterception"));
        }
        let metadata = crd.get_mut("metadata").and_then(Value::as_object_mut).context("metadata")?;
        metadata.insert("annotations".into(), json!({"controller-gen.kubebuilder.io/version": "v0.20.0"}));
        found.push(crd);
    }
    Ok(found)
}

/// What must not change of an object that nobody has a reason to write.
fn identity(object: &Value) -> (String, String) {
    (object.uid().to_owned(), object.version().to_owned())
}

/// Identities of our definitions.
async fn ours(all: &Ns) -> Result<BTreeMap<String, (String, String)>> {
    let mut found = BTreeMap::new();
    for kind in OURS {
        let crd = all.get(kinds::CRD, &name_of(kind)).await?;
        found.insert(crd.name().to_owned(), identity(&crd));
    }
    Ok(found)
}

/// No mark of Helm's ownership on them: the next release may take them as they are.
fn owned_by_helm(crd: &Value) -> bool {
    let none = Map::new();
    let of = |path: &str| crd.pointer(path).and_then(Value::as_object).unwrap_or(&none).clone();
    of("/metadata/annotations").keys().any(|key| key.starts_with("meta.helm.sh/"))
        || of("/metadata/labels").get("app.kubernetes.io/managed-by") == Some(&json!("Helm"))
}

/// Packaging 9: an installation over the definitions of the previous operator updates them and leaves stored objects as they
/// are; the second upgrade writes nothing. Packaging 24: definitions of another owner are what they were, from before the
/// installation until after its end.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn packaging_09_24_definitions_that_were_there() -> Result<()> {
    let node = RealNode::own().await?;
    let cluster = node.cluster();
    let helm = Helm::new(&node.built().helm, cluster).await?;
    let all = Ns::cluster(cluster.client().await?);
    let team = node.namespace("team1", json!({})).await?;

    all.create(objects::open_crd(FOREIGN)).await?;
    for crd in older(&helm)? {
        all.create(crd).await?;
    }
    for name in OURS.map(name_of).into_iter().chain([name_of(FOREIGN)]) {
        all.until(secs(30), kinds::CRD, &name, "Established", |crd| {
            crd.condition("Established").status == "True"
        })
        .await?;
    }
    let before = all.get(kinds::CRD, &name_of(kinds::AGENT_RUNTIME)).await?;
    ensure!(before.pointer(NEW_FIELD).is_none(), "the older definition has the newer field");
    team.create(objects::named(FOREIGN, "theirs").spec(json!({"model": "anything"}))).await?;
    let theirs = all.get(kinds::CRD, &name_of(FOREIGN)).await?;
    let their_object = team.get(FOREIGN, "theirs").await?;
    // Of no workload, so that nobody has anything to add to it.
    let stored = team.create(objects::agent_runtime("stored", "nowhere")).await?;

    let (chart, place) = (helm.chart(), format!("--namespace={NAMESPACE}"));
    let chart = chart.to_str().context("a path")?;
    let wait = ["--wait", "--timeout=3m"];
    let run = async |words: &[&str]| helm_run(&helm, cluster, &[words, &wait].concat()).await;
    run(&["install", RELEASE, chart, &place, "--create-namespace"]).await?;
    let now = all.get(kinds::CRD, &name_of(kinds::AGENT_RUNTIME)).await?;
    assert_eq!(now.uid(), before.uid(), "updated, not replaced");
    ensure!(now.pointer(NEW_FIELD).is_some(), "{}", now.readable());
    for kind in OURS {
        let crd = all.get(kinds::CRD, &name_of(kind)).await?;
        ensure!(!owned_by_helm(&crd), "{}", crd.readable());
        ensure!(crd.annotation("kagenti.io/schema-revision").is_some(), "{}", crd.name());
    }
    let kept = team.get(kinds::AGENT_RUNTIME, "stored").await?;
    assert_eq!((kept.uid(), kept.pointer("/spec")), (stored.uid(), stored.pointer("/spec")));

    let definitions = ours(&all).await?;
    run(&["upgrade", RELEASE, chart, &place]).await?;
    assert_eq!(ours(&all).await?, definitions, "the second upgrade writes no definition");

    run(&["uninstall", RELEASE, &place]).await?;
    assert_eq!(ours(&all).await?, definitions, "they stay");
    team.get(kinds::AGENT_RUNTIME, "stored").await?;
    assert_eq!(identity(&all.get(kinds::CRD, &name_of(FOREIGN)).await?), identity(&theirs));
    assert_eq!(identity(&team.get(FOREIGN, "theirs").await?), identity(&their_object));
    cluster.stop().await
}

/// Packaging 5 and 9: definitions as a release of their own; then each component's chart, one after the other, becomes ready
/// with nothing else in the cluster; then the umbrella without definitions.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn packaging_05_09_every_component_alone() -> Result<()> {
    let node = RealNode::own().await?;
    let cluster = node.cluster();
    let helm = Helm::new(&node.built().helm, cluster).await?;
    let all = Ns::cluster(cluster.client().await?);
    let install = async |release: &str, chart: &std::path::Path, namespace: &str, more: &[&str]| {
        let place = format!("--namespace={namespace}");
        let chart = chart.to_str().context("a path")?;
        let words = ["install", release, chart, &place, "--create-namespace", "--wait", "--timeout=2m"];
        helm_run(&helm, cluster, &[&words, more].concat()).await
    };
    let chart = component_chart(&helm, "kagenti-crds-agent").await?;
    install("definitions", &chart, "definitions", &[]).await?;
    let definitions = ours(&all).await?;
    let groups: Vec<Value> = all.list(kinds::CRD, "").await?;
    assert_eq!(groups.len(), OURS.len(), "of one group only");

    for component in COMPONENTS {
        let chart = component_chart(&helm, component).await?;
        let namespace = format!("alone-{component}");
        install("alone", &chart, &namespace, &[]).await?;
        let ns = all.other(&namespace);
        until_ready(&ns, secs(60)).await?;
        for pod in pods(&ns, component).await? {
            let (status, text) = readyz(&pod).await?;
            assert_eq!(status, 200, "{component}: {text}");
        }
        let place = format!("--namespace={namespace}");
        helm_run(&helm, cluster, &["uninstall", "alone", &place, "--wait", "--timeout=2m"]).await?;
        let left = pods(&ns, "").await?;
        ensure!(left.is_empty(), "{component}: {left:?}");
    }

    install(RELEASE, &helm.chart(), NAMESPACE, &["--set=kagenti-crds-agent.enabled=false"]).await?;
    until_ready(&all.other(NAMESPACE), secs(60)).await?;
    assert_eq!(ours(&all).await?, definitions);
    cluster.stop().await
}
