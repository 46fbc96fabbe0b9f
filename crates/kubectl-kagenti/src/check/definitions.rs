//! The CustomResourceDefinitions: there, served, and with the fields of this release.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use crate::cluster::{Cluster, NoCluster, Right};

use super::finding::{Finding, known};

const CHECK: &str = "definitions";
const APPLY: &str =
    "kubectl apply --server-side --force-conflicts -k deploy/crds   # in a clone of the release";
/// Missing fields that are named; the rest is counted.
const NAMED: usize = 5;

pub(super) async fn check(cluster: &Cluster) -> Result<Vec<Finding>, NoCluster> {
    let api = Api::<CustomResourceDefinition>::all(cluster.client().clone());
    let needs = Right::global("get", "customresourcedefinitions.apiextensions.k8s.io");
    let mut findings = Vec::new();
    for wanted in api_types::crds::all() {
        let name = wanted.name_any();
        let answer = cluster.answer(&needs, api.get_opt(&name).await)?;
        findings.push(match known(CHECK, &name, answer) {
            Ok(live) => judge(&wanted, live.as_ref()),
            Err(unknown) => unknown,
        });
    }
    Ok(findings)
}

fn judge(wanted: &CustomResourceDefinition, live: Option<&CustomResourceDefinition>) -> Finding {
    let name = wanted.name_any();
    let Some(live) = live else {
        return Finding::failed(CHECK, format!("{name} is not installed"), APPLY);
    };
    if live.metadata.deletion_timestamp.is_some() {
        return Finding::failed(
            CHECK,
            format!("{name} is being deleted, with all of its objects, and waits for their finalizers"),
            "kubectl kagenti uninstall --remove-finalizers --dry-run",
        );
    }
    let condition = |kind: &str| {
        let conditions = live.status.as_ref().and_then(|status| status.conditions.as_ref())?;
        conditions.iter().find(|condition| condition.type_ == kind)
    };
    for kind in ["NamesAccepted", "Established"] {
        if let Some(bad) = condition(kind).filter(|condition| condition.status != "True") {
            let why = bad.message.as_deref().unwrap_or_default();
            return Finding::failed(
                CHECK,
                format!("{name} is not served: {kind}={}: {why}", bad.status),
                format!("kubectl describe crd {name}"),
            );
        }
    }
    let version = api_types::names::VERSION;
    let live_version = live.spec.versions.iter().find(|served| served.name == version && served.served);
    let Some(live_version) = live_version else {
        return Finding::failed(CHECK, format!("{name} does not serve version {version}"), APPLY);
    };
    let of = |crd: &CustomResourceDefinition| {
        let found = crd.spec.versions.iter().find(|known| known.name == version);
        found
            .map(|version| fields(&serde_json::to_value(&version.schema).unwrap_or_default()))
            .unwrap_or_default()
    };
    let missing: Vec<String> = of(wanted).difference(&of(live)).cloned().collect();
    if !missing.is_empty() {
        let named = missing.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = missing.len().saturating_sub(NAMED);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        return Finding::failed(
            CHECK,
            format!("{name} is older than this plugin: it has no {named}{more}, so these fields are dropped"),
            APPLY,
        );
    }
    Finding::ok(CHECK, format!("{name} is served as {}", live_version.name))
}

/// The outermost paths of all properties that a schema names; below a free-form object there are none.
fn fields(schema: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(schema.pointer("/openAPIV3Schema").unwrap_or(schema), "", &mut found);
    found
}

fn collect(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, below) in properties {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            collect(below, &path, found);
            found.insert(path);
        }
    }
    for items in ["items", "additionalProperties"] {
        if let Some(below) = schema.get(items) {
            collect(below, path, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::super::finding::Verdict;
    use super::*;

    fn runtime() -> CustomResourceDefinition {
        let all = api_types::crds::all();
        all.into_iter().find(|crd| crd.name_any().starts_with("agentruntimes")).expect("the definition")
    }

    fn with(change: &Value) -> CustomResourceDefinition {
        let mut value = serde_json::to_value(runtime()).expect("JSON");
        let map = value.as_object_mut().expect("an object");
        for (key, value) in change.as_object().expect("an object") {
            map.insert(key.clone(), value.clone());
        }
        serde_json::from_value(value).expect("a definition")
    }

    #[test]
    fn the_own_definition_is_fine() {
        assert_eq!(judge(&runtime(), Some(&runtime())).result, Verdict::Ok);
    }

    #[rstest]
    #[case::deleted(json!({"metadata": {"name": "x", "deletionTimestamp": "2026-01-01T00:00:00Z"}}), "is being deleted")]
    #[case::names(json!({"status": {"conditions": [{"type": "NamesAccepted", "status": "False", "message": "taken"}]}}), "NamesAccepted=False: taken")]
    #[case::not_served(json!({"spec": {"group": "agent.kagenti.dev", "names": {"kind": "AgentRuntime", "plural": "agentruntimes"}, "scope": "Namespaced",
        "versions": [{"name": "v1alpha1", "served": false, "storage": true}]}}), "does not serve version v1alpha1")]
    fn what_is_wrong_with_a_definition(#[case] change: Value, #[case] says: &str) {
        let finding = judge(&runtime(), Some(&with(&change)));
        assert_eq!(finding.result, Verdict::Failed);
        assert!(finding.message.contains(says), "{finding:?}");
    }

    #[test]
    fn missing_ones_and_missing_fields_are_named() {
        assert!(judge(&runtime(), None).message.contains("agentruntimes.agent.kagenti.dev is not installed"));
        let mut old = runtime();
        let schema = old.spec.versions[0].schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut());
        let spec = schema.and_then(|s| s.properties.as_mut()).and_then(|p| p.get_mut("spec")).expect("spec");
        spec.properties.as_mut().expect("properties").remove("mtlsMode");
        let finding = judge(&runtime(), Some(&old));
        assert!(finding.message.contains("it has no spec.mtlsMode, so"), "{finding:?}");
        assert_eq!(finding.result, Verdict::Failed);
    }
}
