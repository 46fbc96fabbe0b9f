//! A Pod read the way the scenarios speak of it: containers by name, environment in order, the plan.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use api_types::names::annotation;
use serde_json::Value;

use crate::json::Json as _;

/// Containers the webhook adds.
const INJECTED: [&str; 3] = ["authbridge-proxy", "envoy-proxy", "proxy-init"];
/// Shared empty value for what is not there.
static NOTHING: Value = Value::Null;

/// A Pod as JSON.
#[derive(Clone, Debug)]
pub struct PodView(Value);

impl PodView {
    /// A Pod as JSON, for example one that a patch was applied to.
    pub fn new(pod: Value) -> Self {
        Self(pod)
    }

    /// The whole Pod.
    pub fn json(&self) -> &Value {
        &self.0
    }

    /// The Pod's name.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// Names of the ordinary containers, in order.
    pub fn containers(&self) -> Vec<&str> {
        names(self.0.items("/spec/containers"))
    }

    /// Names of the init containers, in order.
    pub fn init_containers(&self) -> Vec<&str> {
        names(self.0.items("/spec/initContainers"))
    }

    /// An ordinary container or an init container.
    pub fn container(&self, name: &str) -> Result<&Value> {
        self.0.container(name).with_context(|| {
            let (containers, init) = (self.containers(), self.init_containers());
            format!("Pod {} has no container {name}: containers {containers:?}, init {init:?}", self.name())
        })
    }

    /// Whether the webhook put anything of its own into the Pod.
    pub fn is_injected(&self) -> bool {
        let mut all = self.containers().into_iter().chain(self.init_containers());
        all.any(|name| INJECTED.contains(&name)) || !self.annotation(annotation::AUTHBRIDGE_STATUS).is_empty()
    }

    /// Names of a container's variables, in order.
    pub fn env_names(&self, container: &str) -> Result<Vec<&str>> {
        Ok(names(self.container(container)?.items("/env")))
    }

    /// The literal value of a variable; none when it is absent or comes from elsewhere.
    pub fn env(&self, container: &str, name: &str) -> Result<Option<&str>> {
        Ok(self.env_entry(container, name)?.get("value").and_then(Value::as_str))
    }

    /// A variable whole.
    pub fn env_entry(&self, container: &str, name: &str) -> Result<&Value> {
        Ok(named(self.container(container)?.items("/env"), name))
    }

    /// Demands a literal variable.
    pub fn expect_env(&self, container: &str, name: &str, value: &str) -> Result<()> {
        let found = self.env(container, name)?;
        ensure!(found == Some(value), "{name} of {container} in {} is {found:?}, not {value:?}", self.name());
        Ok(())
    }

    /// Ports of a container as (name, number); a port without name has an empty one.
    pub fn ports(&self, container: &str) -> Result<Vec<(&str, u64)>> {
        let ports = self.container(container)?.items("/ports").iter();
        Ok(ports
            .map(|p| {
                (p.text("/name"), p.pointer("/containerPort").and_then(Value::as_u64).unwrap_or_default())
            })
            .collect())
    }

    /// Mounts of a container as (volume, path), in order, without the ServiceAccount token.
    pub fn mounts(&self, container: &str) -> Result<Vec<(&str, &str)>> {
        let mounts = self.container(container)?.items("/volumeMounts").iter();
        let mounts = mounts.map(|m| (m.text("/name"), m.text("/mountPath")));
        Ok(mounts.filter(|(name, _)| !name.starts_with("kube-api-access-")).collect())
    }

    /// A volume by name; null when there is none.
    pub fn volume(&self, name: &str) -> &Value {
        named(self.0.items("/spec/volumes"), name)
    }

    /// Names of the volumes without the ServiceAccount token.
    pub fn volumes(&self) -> BTreeSet<&str> {
        let all = names(self.0.items("/spec/volumes"));
        all.into_iter().filter(|name| !name.starts_with("kube-api-access-")).collect()
    }

    /// An annotation; empty when absent.
    pub fn annotation(&self, name: &str) -> &str {
        self.0.annotation(name).unwrap_or_default()
    }

    /// A label; empty when absent.
    pub fn label(&self, name: &str) -> &str {
        self.0.label(name).unwrap_or_default()
    }

    /// `spec.serviceAccountName`.
    pub fn service_account(&self) -> &str {
        self.0.text("/spec/serviceAccountName")
    }

    /// The status annotation, parsed.
    pub fn plan(&self) -> Result<Value> {
        let annotation = self.annotation(annotation::AUTHBRIDGE_STATUS);
        serde_json::from_str(annotation).with_context(|| {
            format!("{} of Pod {}: {annotation:?}", annotation::AUTHBRIDGE_STATUS, self.name())
        })
    }

    /// Name of the ConfigMap that a volume shows.
    pub fn config_map_of(&self, volume: &str) -> &str {
        self.volume(volume).text("/configMap/name")
    }
}

fn names(list: &[Value]) -> Vec<&str> {
    list.iter().map(|item| item.text("/name")).collect()
}

fn named<'a>(list: &'a [Value], name: &str) -> &'a Value {
    list.iter().find(|item| item.text("/name") == name).unwrap_or(&NOTHING)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objects;

    #[test]
    fn a_plain_pod_is_not_injected_and_its_parts_are_found() {
        let plain = PodView::new(objects::pod("a").label("kagenti.io/type", "agent").build());
        assert!(!plain.is_injected());
        assert_eq!(plain.label("kagenti.io/type"), "agent");
        assert_eq!(plain.ports("agent").expect("the container"), [("http", 8000)]);
        assert!(plain.container("other").is_err());
        assert!(plain.volume("x").is_null());
    }

    #[test]
    fn each_sign_of_injection_counts() {
        let with_init = objects::pod("a").spec(json!({"initContainers": [{"name": "proxy-init"}]})).build();
        assert!(PodView::new(with_init).is_injected());
        let with_plan = objects::pod("a").annotation("kagenti.io/authbridge-status", "{\"v\":1}").build();
        let with_plan = PodView::new(with_plan);
        assert!(with_plan.is_injected());
        assert_eq!(with_plan.plan().expect("json")["v"], 1);
    }
}
