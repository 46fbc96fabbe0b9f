//! A Pod as the demo compares it: before and after the suite took care of it.

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;

/// Longer names of volumes would tear the table apart.
const LONGEST: usize = 40;

/// What a reader notices about a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodView {
    pub(crate) name: String,
    pub(crate) phase: String,
    pub(crate) containers: Vec<String>,
    init: Vec<String>,
    service_account: String,
    labels: Vec<String>,
    volumes: Vec<String>,
    env: Vec<String>,
}

impl PodView {
    pub(crate) fn new(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
        let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
        let always = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
        let name = |container: &Container| container.name.clone();
        let mut names: Vec<String> = containers.iter().map(name).collect();
        names.extend(init.iter().filter(always).map(name));
        Self {
            name: pod.name_any(),
            phase: status.and_then(|status| status.phase.clone()).unwrap_or_default(),
            containers: names,
            init: init.iter().filter(|container| !always(container)).map(name).collect(),
            service_account: spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
            labels: pod
                .labels()
                .iter()
                .filter(|(key, _)| key.contains("kagenti"))
                .map(|(key, value)| format!("{key}={value}"))
                .collect(),
            volumes: spec
                .and_then(|spec| spec.volumes.as_deref())
                .unwrap_or_default()
                .iter()
                .map(|volume| volume.name.clone())
                // Every Pod gets this one from Kubernetes, under a random name.
                .filter(|name| !name.starts_with("kube-api-access-"))
                .map(|name| console::truncate_str(&name, LONGEST, "…").into_owned())
                .collect(),
            env: containers
                .iter()
                .take(1)
                .flat_map(|agent| agent.env.as_deref().unwrap_or_default())
                .map(|variable| variable.name.clone())
                .collect(),
        }
    }

    /// Containers beside those that the user wrote; none when those are not known.
    pub(crate) fn injected(&self, written: &[String]) -> Vec<String> {
        let added = self.containers.iter().chain(&self.init).filter(|name| !written.contains(name));
        if written.is_empty() { Vec::new() } else { added.cloned().collect() }
    }

    /// Rows of a table: what, before, after.
    pub(crate) fn compare(before: &Self, after: &Self) -> Vec<[String; 3]> {
        let list = |items: &[String]| if items.is_empty() { "-".to_owned() } else { items.join("\n") };
        let row =
            |what: &str, get: fn(&Self) -> &[String]| [what.to_owned(), list(get(before)), list(get(after))];
        vec![
            ["name".to_owned(), before.name.clone(), after.name.clone()],
            row("containers", |view| &view.containers),
            row("init containers", |view| &view.init),
            ["ServiceAccount".to_owned(), before.service_account.clone(), after.service_account.clone()],
            row("labels", |view| &view.labels),
            row("volumes", |view| &view.volumes),
            row("agent's env", |view| &view.env),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sidecars_count_as_containers() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "a", "labels": {"app": "x", "kagenti.io/type": "agent"}},
            "spec": {
                "containers": [{"name": "agent", "env": [{"name": "PORT"}]}],
                "initContainers": [{"name": "proxy", "restartPolicy": "Always"}, {"name": "init"}],
                "volumes": [{"name": "shared"}, {"name": "kube-api-access-abcde"}],
            },
        }))
        .expect("a Pod");
        let view = PodView::new(&pod);
        assert_eq!(view.containers, ["agent", "proxy"]);
        assert_eq!((view.init.len(), view.volumes.len()), (1, 1));
        assert_eq!(view.injected(&["agent".to_owned()]), ["proxy", "init"]);
        assert!(view.injected(&[]).is_empty());
        let rows = PodView::compare(&PodView::default(), &view);
        assert_eq!(rows[1], ["containers", "-", "agent\nproxy"]);
        assert_eq!(rows[4][2], "kagenti.io/type=agent");
    }
}
