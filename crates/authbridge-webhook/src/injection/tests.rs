//! Whole injections: a Pod and a world in, a patched Pod and objects out.

mod credentials;
mod properties;
mod reinvocation;
mod rules;
mod scenarios;
mod snapshots;
mod split;
mod tls_bridge;
mod writes;

use std::collections::BTreeMap;

use api_types::{
    AgentRuntimeSpec, TargetRef, WorkloadType,
    gates::FeatureGates,
    injection::{ClusterFacts, Layout, NamespaceFacts, RuntimeDocument},
    namespace_config::{AuthbridgeConfig, RuntimeConfig},
    owner::Workload,
    platform::PlatformConfig,
};
use serde_json::{Value, json};

use super::{
    ConfigNames, Deny, DryRun, Injection, Inputs, Outcome, Patch, Pod, Reinvocation, config_names, inject,
    screen,
};

/// Everything besides the Pod.
#[derive(Debug)]
struct World {
    gates: FeatureGates,
    platform: PlatformConfig,
    csi_driver: bool,
    native_sidecars: bool,
    namespace: &'static str,
    labels: BTreeMap<String, String>,
    authbridge: Option<BTreeMap<String, String>>,
    config: RuntimeConfig,
    helper_conf: Option<&'static str>,
    runtime: Option<AgentRuntimeSpec>,
    ambiguous_runtime: Option<&'static str>,
    workload: Workload,
    names: ConfigNames,
    pinned: Option<&'static str>,
    dry_run: Option<DryRun>,
}

impl World {
    /// Namespace `team1` of the acceptance scenarios, workload Deployment `weather`.
    fn team1() -> Self {
        let workload = Workload { group: "apps".into(), kind: "Deployment".into(), name: "weather".into() };
        Self {
            gates: FeatureGates::default(),
            platform: PlatformConfig::default(),
            csi_driver: true,
            native_sidecars: true,
            namespace: "team1",
            labels: strings(&[("kagenti-enabled", "true")]),
            authbridge: Some(strings(&[("KEYCLOAK_URL", "http://kc:8080"), ("KEYCLOAK_REALM", "r")])),
            config: RuntimeConfig::default(),
            helper_conf: None,
            runtime: None,
            ambiguous_runtime: None,
            names: config_names(&workload, |_| None),
            workload,
            pinned: None,
            dry_run: None,
        }
    }

    /// Nothing but Kubernetes: namespace `default`, no CSI driver, no ConfigMaps.
    fn bare() -> Self {
        Self {
            csi_driver: false,
            namespace: "default",
            labels: BTreeMap::new(),
            authbridge: None,
            ..Self::team1()
        }
    }

    /// `team1` with platform key `sidecars.layout: split`.
    fn split() -> Self {
        let mut world = Self::team1();
        world.platform.sidecars.layout = Some(Layout::Split);
        world.helper_conf = Some("agent_address = \"/spiffe-workload-api/spire-agent.sock\"\n");
        world.authbridge = Some(strings(&[
            ("KEYCLOAK_URL", "http://kc:8080"),
            ("KEYCLOAK_REALM", "r"),
            ("ISSUER", "https://kc/realms/r"),
        ]));
        world
    }

    fn with_config(mut self, text: &str) -> Self {
        self.config = RuntimeConfig::parse(text).expect("a config.yaml");
        self
    }

    fn with_runtime(mut self, edit: impl FnOnce(&mut AgentRuntimeSpec)) -> Self {
        let mut spec = runtime_spec();
        edit(&mut spec);
        self.runtime = Some(spec);
        self
    }

    fn cluster(&self) -> ClusterFacts<'_> {
        ClusterFacts {
            gates: &self.gates,
            platform: &self.platform,
            spire_driver: self.csi_driver,
            operator_namespace: "kagenti-system",
        }
    }

    fn facts(&self) -> NamespaceFacts<'_> {
        NamespaceFacts {
            name: self.namespace,
            labels: Some(&self.labels),
            runtime_config: RuntimeDocument::Parsed(&self.config),
            authbridge: AuthbridgeConfig(self.authbridge.as_ref()),
        }
    }

    /// One admission call, as the server makes it.
    fn admit(&self, raw: &Value) -> Outcome {
        let pod = Pod::parse(raw).expect("a Pod");
        if let Some(outcome) = screen(&pod, &self.cluster(), &self.facts()) {
            return outcome;
        }
        inject(&Inputs {
            pod: &pod,
            cluster: self.cluster(),
            native_sidecars: self.native_sidecars,
            namespace: self.facts(),
            helper_conf: self.helper_conf,
            workload: &self.workload,
            runtime: self.runtime.as_ref(),
            ambiguous_runtime: self.ambiguous_runtime,
            names: &self.names,
            pinned_config: self.pinned,
            dry_run: self.dry_run,
        })
    }

    /// The patched Pod and the answer; fails the test unless it is injected.
    fn injected(&self, raw: &Value) -> (Value, Injection) {
        match self.admit(raw) {
            Outcome::Inject(injection) => (patched(raw, &injection.patch), *injection),
            other => panic!("not injected: {other:?}"),
        }
    }

    fn denied(&self, raw: &Value) -> Deny {
        match self.admit(raw) {
            Outcome::Deny(deny) => deny,
            other => panic!("not denied: {other:?}"),
        }
    }

    fn reinvoked(&self, raw: &Value) -> (Value, Reinvocation) {
        match self.admit(raw) {
            Outcome::Reinvoke(answer) => (patched(raw, &answer.patch), answer),
            other => panic!("not a reinvocation: {other:?}"),
        }
    }
}

fn runtime_spec() -> AgentRuntimeSpec {
    AgentRuntimeSpec {
        workload_type: WorkloadType::Agent,
        target_ref: TargetRef {
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            name: "weather".into(),
        },
        identity: None,
        auth_bridge_mode: None,
        mtls_mode: None,
        tls_bridge_mode: None,
        inbound_interception: None,
        egress_enforcement: None,
    }
}

fn strings(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The Pod of scenario 1, as the ReplicaSet controller sends it.
fn weather() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "weather-7d4f8b9c5-",
            "labels": {"kagenti.io/type": "agent", "pod-template-hash": "7d4f8b9c5"},
        },
        "spec": {
            "serviceAccountName": "default",
            "containers": [{
                "name": "agent",
                "image": "weather:1",
                "ports": [{"containerPort": 8000, "name": "http", "protocol": "TCP"}],
            }],
        },
    })
}

fn weather_on(port: u16) -> Value {
    let mut pod = weather();
    pod["spec"]["containers"][0]["ports"][0]["containerPort"] = port.into();
    pod
}

fn patched(raw: &Value, patch: &Patch) -> Value {
    let patch: json_patch::Patch = serde_json::from_slice(&patch.to_json()).expect("a JSON patch");
    let mut pod = raw.clone();
    json_patch::patch(&mut pod, &patch).expect("the patch applies");
    pod
}

fn push(list: &mut Value, entry: Value) {
    list.as_array_mut().expect("a list").push(entry);
}

fn named<'v>(list: &'v Value, name: &str) -> &'v Value {
    list.as_array().and_then(|list| list.iter().find(|entry| entry["name"] == name)).unwrap_or(&Value::Null)
}

fn container<'v>(pod: &'v Value, name: &str) -> &'v Value {
    match named(&pod["spec"]["containers"], name) {
        Value::Null => named(&pod["spec"]["initContainers"], name),
        found => found,
    }
}

fn env<'v>(pod: &'v Value, of: &str, name: &str) -> &'v Value {
    &named(&container(pod, of)["env"], name)["value"]
}

fn names_of(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(|entry| entry["name"].as_str()).collect()
}

fn mount_paths(pod: &Value, of: &str) -> Vec<String> {
    container(pod, of)["volumeMounts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|mount| {
            let mode = if mount["readOnly"] == true { "ro" } else { "rw" };
            format!(
                "{} {} {mode}",
                mount["name"].as_str().unwrap_or(""),
                mount["mountPath"].as_str().unwrap_or("")
            )
        })
        .collect()
}

fn status(pod: &Value) -> Value {
    let text = pod["metadata"]["annotations"]["kagenti.io/authbridge-status"].as_str().expect("a status");
    serde_json::from_str(text).expect("JSON")
}

fn codes(injection: &Injection) -> Vec<&'static str> {
    injection.warnings.iter().map(|warning| warning.code.as_str()).collect()
}

/// A file of a generated ConfigMap, parsed.
fn file(injection: &Injection, map: &str, key: &str) -> Value {
    let map = injection.writes.config_maps.iter().find(|planned| planned.name == map).expect("a ConfigMap");
    api_types::yaml::parse_value(&map.data[key]).expect("YAML")
}

fn config_yaml(injection: &Injection) -> Value {
    file(injection, "authbridge-config-weather", "config.yaml")
}
