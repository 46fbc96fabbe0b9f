//! A namespace of agents: what the suite needs there, and which of its objects are not well.

use api_types::names::{condition, configmap, label};
use api_types::namespace_config::{AuthbridgeConfig, RuntimeConfig, has_identity_provider};
use api_types::{AgentCardDefinition, AgentRuntime};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use serde_json::Value;

use crate::cluster::{Answer, Cluster, NoCluster, Right, list};
use crate::installation::Found;

use super::finding::{Finding, known};

const CHECK: &str = "namespace";
/// Objects of a kind that are named; the rest is counted.
const NAMED: usize = 10;
/// A deletion, or the first status, takes this long at most while somebody works on it.
const WORK: SignedDuration = SignedDuration::from_secs(60);

pub(super) async fn check(
    cluster: &Cluster,
    name: &str,
    found: &Found,
    now: Timestamp,
) -> Result<Vec<Finding>, NoCluster> {
    let mut findings = Vec::new();
    let api = Api::<Namespace>::all(cluster.client().clone());
    let live = cluster.answer(&Right::global("get", "namespaces"), api.get_opt(name).await)?;
    match known(CHECK, &format!("namespace {name}"), live) {
        Err(unknown) => findings.push(unknown),
        Ok(live) => {
            let is_gone = live.is_none();
            findings.extend(judge(name, live.as_ref()));
            if is_gone {
                return Ok(findings);
            }
        }
    }
    findings.extend(uncovered(name, found));
    findings.extend(configuration(cluster, name).await?);
    for (kind, resource) in [
        (ApiResource::erase::<AgentRuntime>(&()), "agentruntimes.agent.kagenti.dev"),
        (ApiResource::erase::<AgentCardDefinition>(&()), "agentcards.agent.kagenti.dev"),
    ] {
        let api: Api<DynamicObject> = Api::namespaced_with(cluster.client().clone(), name, &kind);
        let objects = match list(&api, "").await {
            // Said by the check of definitions.
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            other => cluster.answer(&Right::new("list", resource, Some(name)), other)?,
        };
        match known(CHECK, &format!("{}s in namespace {name}", kind.kind), objects) {
            Ok(objects) => findings.extend(unwell(&kind.kind, resource, &objects, now)),
            Err(unknown) => findings.push(unknown),
        }
    }
    Ok(findings)
}

fn judge(name: &str, live: Option<&Namespace>) -> Vec<Finding> {
    let Some(live) = live else {
        let remedy = format!("kubectl create namespace {name}");
        return vec![Finding::failed(CHECK, format!("namespace {name} does not exist"), remedy)];
    };
    if live.metadata.deletion_timestamp.is_some() {
        return vec![Finding::failed(
            CHECK,
            format!("namespace {name} is being deleted: nothing can be created in it"),
            format!("kubectl kagenti uninstall --remove-finalizers --dry-run -n {name}"),
        )];
    }
    let labels = live.metadata.labels.as_ref();
    let enabled = labels.and_then(|labels| labels.get(label::NAMESPACE_ENABLED)).map(String::as_str);
    vec![match enabled {
        Some("true") => Finding::ok(
            CHECK,
            format!("namespace {name} is enabled: Pods labelled by hand get sidecars, too"),
        ),
        Some(other) => Finding::warning(
            CHECK,
            format!(
                "namespace {name} has {}={other:?}, which means no: only workloads with an AgentRuntime get sidecars",
                label::NAMESPACE_ENABLED
            ),
            format!("kubectl label --overwrite namespace {name} {}=true", label::NAMESPACE_ENABLED),
        ),
        None => Finding::ok(
            CHECK,
            format!(
                "namespace {name}: workloads with an AgentRuntime get sidecars, Pods labelled by hand do not"
            ),
        ),
    }]
}

/// Components that were told to look elsewhere.
fn uncovered(name: &str, found: &Found) -> Vec<Finding> {
    let mut findings = Vec::new();
    for component in &found.components {
        let same = || found.components.iter().filter(|other| other.name == component.name);
        // Several releases may share the work; each component is named once.
        let first = same().next().is_some_and(|first| first == component);
        if first && !same().any(|other| other.covers(name)) {
            let watched: Vec<&str> = same().flat_map(|other| &other.watches).map(String::as_str).collect();
            findings.push(Finding::failed(
                CHECK,
                format!(
                    "no {} looks after namespace {name}, only after {}",
                    component.name,
                    watched.join(", ")
                ),
                format!("add it to {}.watchNamespaces, or to global.watchNamespaces", component.name),
            ));
        }
    }
    findings
}

async fn configuration(cluster: &Cluster, namespace: &str) -> Result<Vec<Finding>, NoCluster> {
    let needs = Right::new("get", "configmaps", Some(namespace));
    let api = cluster.api::<ConfigMap>(Some(namespace));
    let read = async |name: &str| cluster.answer(&needs, api.get_opt(name).await);
    let (authbridge, runtime) =
        (read(configmap::AUTHBRIDGE).await?, read(configmap::AUTHBRIDGE_RUNTIME).await?);
    Ok(match (authbridge, runtime) {
        (Answer::Known(authbridge), Answer::Known(runtime)) => {
            vec![identity(namespace, authbridge.as_ref(), runtime.as_ref())]
        }
        (Answer::Unknown(why), _) | (_, Answer::Unknown(why)) => {
            vec![Finding::unknown(CHECK, &format!("the configuration of namespace {namespace}"), &why)]
        }
    })
}

/// Whether requests to agents of the namespace are authenticated, and by whom.
fn identity(namespace: &str, authbridge: Option<&ConfigMap>, runtime: Option<&ConfigMap>) -> Finding {
    let text = runtime.and_then(|map| map.data.as_ref()?.get(configmap::CONFIG_KEY));
    let runtime = match text.map(|text| RuntimeConfig::parse(text)).transpose() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Finding::failed(
                CHECK,
                format!(
                    "ConfigMap {namespace}/{}: {} is no YAML: {error}",
                    configmap::AUTHBRIDGE_RUNTIME,
                    configmap::CONFIG_KEY
                ),
                format!("kubectl -n {namespace} edit configmap {}", configmap::AUTHBRIDGE_RUNTIME),
            );
        }
    };
    let config = AuthbridgeConfig(authbridge.and_then(|map| map.data.as_ref()));
    let edit = format!("kubectl -n {namespace} edit configmap {}", configmap::AUTHBRIDGE);
    let name = format!("ConfigMap {namespace}/{}", configmap::AUTHBRIDGE);
    match (config.keycloak_url(), config.keycloak_realm()) {
        (Some(url), Some(realm)) => {
            Finding::ok(CHECK, format!("{name}: clients are registered in realm {realm} of {url}"))
        }
        (Some(_), None) => Finding::failed(
            CHECK,
            format!("{name} has KEYCLOAK_URL and no KEYCLOAK_REALM: no client is registered"),
            edit,
        ),
        (None, _) if has_identity_provider(config, runtime.as_ref()) => Finding::ok(
            CHECK,
            format!("namespace {namespace} has an identity provider; clients are not registered"),
        ),
        (None, _) => Finding::warning(
            CHECK,
            format!(
                "namespace {namespace} has no identity provider: sidecars run, requests are not authenticated"
            ),
            "docs/bring-your-own-keycloak.md: KEYCLOAK_URL and KEYCLOAK_REALM in ConfigMap authbridge-config",
        ),
    }
}

/// Objects that are not ready, and objects that hang in deletion.
fn unwell(kind: &str, resource: &str, objects: &[DynamicObject], now: Timestamp) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        objects.iter().filter_map(|object| one(kind, resource, object, now)).collect();
    let more = findings.len().saturating_sub(NAMED);
    findings.truncate(NAMED);
    if more > 0 {
        findings.push(Finding::failed(
            CHECK,
            format!("{more} more {kind}s are not well"),
            format!("kubectl get {resource} -A"),
        ));
    }
    if findings.is_empty() && !objects.is_empty() {
        findings.push(Finding::ok(CHECK, format!("{kind}s: {}, all are well", objects.len())));
    }
    findings
}

fn one(kind: &str, resource: &str, object: &DynamicObject, now: Timestamp) -> Option<Finding> {
    let ObjectMeta { name, namespace, finalizers, .. } = &object.metadata;
    let (name, namespace) = (name.as_deref()?, namespace.as_deref()?);
    if let Some(since) = object.metadata.deletion_timestamp.as_ref().map(|time| time.0) {
        let waits = now.duration_since(since);
        return (waits > WORK).then(|| {
            let held = finalizers.as_deref().unwrap_or_default().join(", ");
            Finding::failed(
                CHECK,
                format!(
                    "{kind} {namespace}/{name} waits for {}s to be deleted, for finalizer {held}",
                    waits.as_secs()
                ),
                format!("kubectl kagenti uninstall --remove-finalizers --dry-run -n {namespace}"),
            )
        });
    }
    let made = object.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let age = now.duration_since(made);
    let stored = object.data.pointer("/status/conditions").and_then(Value::as_array);
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    // Its other conditions may be False without harm: Verified in audit mode, for instance (card §10.3).
    let ready = stored.into_iter().flatten().find(|stored| text(stored, "type") == condition::READY);
    let why = match ready {
        Some(bad) if text(bad, "status") != "True" => format!(
            ": {}={}/{}: {}",
            condition::READY,
            text(bad, "status"),
            text(bad, "reason"),
            text(bad, "message")
        ),
        None if stored.is_none() && age > WORK => " has no status: nobody looks after it".to_owned(),
        Some(_) | None => return None,
    };
    let describe = format!("kubectl -n {namespace} describe {resource} {name}");
    Some(Finding::failed(CHECK, format!("{kind} {namespace}/{name}{why}"), describe))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::super::finding::Verdict;
    use super::*;
    use crate::installation::Component;
    use crate::installation::tests::deployment;

    fn map(data: &Value) -> ConfigMap {
        serde_json::from_value(json!({"data": data})).expect("a ConfigMap")
    }

    #[rstest]
    #[case::missing(None, Verdict::Failed, "does not exist")]
    #[case::going(Some(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})), Verdict::Failed, "is being deleted")]
    #[case::enabled(Some(json!({"metadata": {"labels": {"kagenti-enabled": "true"}}})), Verdict::Ok, "is enabled")]
    #[case::misspelt(Some(json!({"metadata": {"labels": {"kagenti-enabled": "yes"}}})), Verdict::Warning, "which means no")]
    #[case::plain(Some(json!({"metadata": {}})), Verdict::Ok, "with an AgentRuntime")]
    fn namespaces(#[case] live: Option<Value>, #[case] verdict: Verdict, #[case] says: &str) {
        let live: Option<Namespace> = live.map(|live| serde_json::from_value(live).expect("a Namespace"));
        let findings = judge("team1", live.as_ref());
        assert_eq!(findings[0].result, verdict);
        assert!(findings[0].message.contains(says), "{findings:?}");
    }

    #[rstest]
    #[case::none(None, None, Verdict::Warning, "requests are not authenticated")]
    #[case::keycloak(Some(json!({"KEYCLOAK_URL": "https://kc", "KEYCLOAK_REALM": "r"})), None, Verdict::Ok, "realm r of https://kc")]
    #[case::no_realm(Some(json!({"KEYCLOAK_URL": "https://kc"})), None, Verdict::Failed, "no KEYCLOAK_REALM")]
    #[case::issuer(Some(json!({"ISSUER": "https://id"})), None, Verdict::Ok, "has an identity provider")]
    #[case::pipeline(None, Some(json!({"config.yaml": "pipeline: {inbound: {}}"})), Verdict::Ok, "has an identity provider")]
    #[case::rubbish(None, Some(json!({"config.yaml": "{"})), Verdict::Failed, "config.yaml is no YAML")]
    fn identities(
        #[case] authbridge: Option<Value>,
        #[case] runtime: Option<Value>,
        #[case] verdict: Verdict,
        #[case] says: &str,
    ) {
        let (authbridge, runtime) = (authbridge.as_ref().map(map), runtime.as_ref().map(map));
        let finding = identity("team1", authbridge.as_ref(), runtime.as_ref());
        assert_eq!(finding.result, verdict, "{finding:?}");
        assert!(finding.message.contains(says), "{finding:?}");
    }

    #[rstest]
    #[case::well(json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}), None)]
    #[case::bad(json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "TargetNotFound", "message": "no x"}]}}), Some("Ready=False/TargetNotFound: no x"))]
    #[case::audit(json!({"status": {"conditions": [
        {"type": "Ready", "status": "True"}, {"type": "Verified", "status": "False", "reason": "SignatureInvalidAudit"}]}}), None)]
    #[case::nobody(json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}), Some("nobody looks after it"))]
    #[case::new(json!({"metadata": {"creationTimestamp": "2026-01-01T00:09:30Z"}}), None)]
    #[case::going(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:09:30Z"}}), None)]
    #[case::stuck(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["kagenti.io/cleanup"]}}), Some("waits for 600s to be deleted, for finalizer kagenti.io/cleanup"))]
    fn objects_that_are_not_well(#[case] object: Value, #[case] says: Option<&str>) {
        let mut object = object;
        object["metadata"]["name"] = "a".into();
        object["metadata"]["namespace"] = "team1".into();
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        let now = "2026-01-01T00:10:00Z".parse().expect("a time");
        let findings = unwell("AgentRuntime", "agentruntimes", &[object], now);
        let bad: Vec<&Finding> =
            findings.iter().filter(|finding| finding.result == Verdict::Failed).collect();
        assert_eq!(bad.len(), usize::from(says.is_some()), "{findings:?}");
        assert!(says.is_none_or(|says| bad[0].message.contains(says)), "{findings:?}");
    }

    /// Several releases may share the work; a component that none of them has here is named once.
    #[test]
    fn who_looks_after_it() {
        let component = |watches: &str| {
            let args = json!([format!("--watch-namespaces={watches}")]);
            Component::of(&deployment("card-ctl", "x:0.1.0", &args)).expect("a component")
        };
        let found = |watches: &[&str]| Found {
            components: watches.iter().map(|w| component(w)).collect(),
            unknown: None,
        };
        assert_eq!(uncovered("team1", &found(&[""])), []);
        assert_eq!(uncovered("team1", &found(&["team2", "team1"])), []);
        let findings = uncovered("team1", &found(&["team2", "team3"]));
        assert_eq!(findings.len(), 1);
        assert!(
            findings[0].message.contains("no card-ctl looks after namespace team1, only after team2, team3")
        );
    }
}
