//! What a component may do, as its chart ships it: `charts/<component>/files/rbac.yaml`.
//!
//! The chart's library, kustomize, the tests and the demo read the same file (packaging §6), so a right that
//! is missing there is missing here.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::components::workspace;

/// The rules of a component by where they hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rights {
    /// Cluster-wide, or in every watched namespace.
    #[serde(default)]
    pub scoped: Vec<PolicyRule>,
    /// In the operator's namespace.
    #[serde(default)]
    pub release: Vec<PolicyRule>,
    /// Cluster-scoped objects; only when the component watches the whole cluster.
    #[serde(default)]
    pub cluster: Vec<PolicyRule>,
    /// In other namespaces, by their name.
    #[serde(default)]
    pub named: BTreeMap<String, Vec<PolicyRule>>,
}

/// Where a component looks, and so where it gets its rights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RbacMode {
    /// The whole cluster.
    #[default]
    Cluster,
    /// Only these namespaces: Roles, no ClusterRole, and the flag `--watch-namespaces`.
    Namespaced(Vec<String>),
}

/// Whose rights they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) component: &'a str,
    pub(super) service_account: &'a str,
    pub(super) namespace: &'a str,
}

impl Rights {
    /// Reads the rules that a component ships with.
    pub fn shipped(component: &str) -> Result<Self> {
        Self::read(&workspace().join("charts").join(component).join("files/rbac.yaml"))
    }

    /// Reads rules from a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        serde_saphyr::from_str(&text).with_context(|| format!("reading the rules in {}", path.display()))
    }

    /// Drops every rule about a resource (`configmaps`, `agentruntimes/status`); false when there is none.
    /// Rules that name several resources keep the others.
    pub fn drop_resource(&mut self, resource: &str) -> bool {
        self.edit(resource, |rule| {
            let resources = rule.resources.get_or_insert_default();
            resources.retain(|name| name != resource);
            !resources.is_empty()
        })
    }

    /// Drops a verb from every rule about a resource; false when no rule has it.
    pub fn drop_verb(&mut self, resource: &str, verb: &str) -> bool {
        let mut dropped = false;
        self.edit(resource, |rule| {
            let before = rule.verbs.len();
            rule.verbs.retain(|known| known != verb);
            dropped |= rule.verbs.len() < before;
            !rule.verbs.is_empty()
        });
        dropped
    }

    /// Applies an edit to the rules about a resource; a rule is kept when the edit says true.
    fn edit(&mut self, resource: &str, mut keep: impl FnMut(&mut PolicyRule) -> bool) -> bool {
        let mut found = false;
        let lists = [&mut self.scoped, &mut self.release, &mut self.cluster];
        for list in lists.into_iter().chain(self.named.values_mut()) {
            list.retain_mut(|rule| {
                let about = rule.resources.iter().flatten().any(|name| name == resource);
                found |= about;
                !about || keep(rule)
            });
        }
        found
    }

    /// The objects to apply: ServiceAccount, roles and bindings.
    pub(super) fn objects(&self, subject: Subject<'_>, mode: &RbacMode) -> Vec<Value> {
        let Subject { service_account, namespace, .. } = subject;
        let mut objects = vec![
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
            json!({
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": service_account, "namespace": namespace},
                "automountServiceAccountToken": false,
            }),
        ];
        // Released side by side in different namespaces, cluster roles must not share a name.
        let wide = format!("{namespace}-{service_account}");
        match mode {
            RbacMode::Cluster => {
                let rules: Vec<&PolicyRule> = self.scoped.iter().chain(&self.cluster).collect();
                objects.extend(bound(subject, None, &wide, &json!(rules)));
                objects.extend(bound(subject, Some(namespace), service_account, &json!(self.release)));
            }
            RbacMode::Namespaced(watched) => {
                let release = with_lease_suffix(&self.release, subject.component, watched);
                for target in watched {
                    objects.extend(bound(subject, Some(target), &wide, &json!(self.scoped)));
                }
                objects.extend(bound(subject, Some(namespace), service_account, &json!(release)));
            }
        }
        // The API server's own namespace is nobody's to grant in namespaced mode (packaging §6).
        let reachable = |target: &str| *mode == RbacMode::Cluster || target != "default";
        for (target, rules) in self.named.iter().filter(|(target, _)| reachable(target)) {
            objects.extend(bound(subject, Some(target), &format!("{wide}-named"), &json!(rules)));
        }
        objects
    }
}

/// A role and its binding, or nothing without rules.
fn bound(subject: Subject<'_>, namespace: Option<&str>, name: &str, rules: &Value) -> Vec<Value> {
    if rules.as_array().is_none_or(Vec::is_empty) {
        return Vec::new();
    }
    let (role, binding) = match namespace {
        Some(_) => ("Role", "RoleBinding"),
        None => ("ClusterRole", "ClusterRoleBinding"),
    };
    let mut metadata = json!({"name": name});
    if let (Some(namespace), Some(map)) = (namespace, metadata.as_object_mut()) {
        map.insert("namespace".to_owned(), namespace.into());
    }
    vec![
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": role,
            "metadata": metadata,
            "rules": rules,
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": binding,
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name},
            "subjects": [{
                "kind": "ServiceAccount",
                "name": subject.service_account,
                "namespace": subject.namespace,
            }],
        }),
    ]
}

/// In namespaced mode the Lease carries a suffix made of the list (packaging §12), and so must the rule.
fn with_lease_suffix(rules: &[PolicyRule], component: &str, watched: &[String]) -> Vec<PolicyRule> {
    let mut sorted = watched.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut suffix = hex::encode(Sha256::digest(sorted.join(",")));
    suffix.truncate(8);
    let lease = format!("{component}.kagenti.dev");
    let mut rules = rules.to_vec();
    for name in rules.iter_mut().flat_map(|rule| rule.resource_names.iter_mut().flatten()) {
        if *name == lease {
            name.push('-');
            name.push_str(&suffix);
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "
scoped:
- {apiGroups: [''], resources: [configmaps, pods], verbs: [get, list]}
release:
- {apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [x.kagenti.dev], verbs: [get]}
cluster:
- {apiGroups: [storage.k8s.io], resources: [csidrivers], verbs: [list]}
named:
  default:
  - {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get]}
";

    fn names(objects: &[Value]) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let name = |o: &Value| {
            format!(
                "{} {}/{}",
                text(&o["kind"]),
                text(&o["metadata"]["namespace"]),
                text(&o["metadata"]["name"])
            )
        };
        objects.iter().map(name).collect()
    }

    #[test]
    fn cluster_mode_has_one_cluster_role() {
        let rights: Rights = serde_saphyr::from_str(RULES).expect("rules");
        let subject = Subject { component: "x", service_account: "x", namespace: "ops" };
        let objects = rights.objects(subject, &RbacMode::Cluster);
        assert_eq!(
            names(&objects),
            [
                "Namespace -/ops",
                "ServiceAccount ops/x",
                "ClusterRole -/ops-x",
                "ClusterRoleBinding -/ops-x",
                "Role ops/x",
                "RoleBinding ops/x",
                "Role default/ops-x-named",
                "RoleBinding default/ops-x-named",
            ]
        );
        assert_eq!(objects[2]["rules"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn namespaced_mode_has_no_cluster_role_and_its_own_lease() {
        let rights: Rights = serde_saphyr::from_str(RULES).expect("rules");
        let subject = Subject { component: "x", service_account: "x", namespace: "ops" };
        let mode = RbacMode::Namespaced(vec!["b".to_owned(), "a".to_owned()]);
        let objects = rights.objects(subject, &mode);
        assert!(names(&objects).iter().all(|name| !name.starts_with("Cluster")));
        assert!(names(&objects).contains(&"Role a/ops-x".to_owned()));
        assert!(!names(&objects).iter().any(|name| name.contains("default/")), "{:?}", names(&objects));
        let role =
            objects.iter().find(|o| o["metadata"]["name"] == "x" && o["kind"] == "Role").expect("a Role");
        let mut digest = hex::encode(Sha256::digest("a,b"));
        digest.truncate(8);
        assert_eq!(role["rules"][0]["resourceNames"][0], format!("x.kagenti.dev-{digest}"));
    }

    #[test]
    fn single_rights_can_be_taken_away() {
        let mut rights: Rights = serde_saphyr::from_str(RULES).expect("rules");
        assert!(rights.drop_verb("pods", "list"));
        assert_eq!(rights.scoped[0].verbs, ["get"]);
        assert!(rights.drop_resource("pods"));
        assert_eq!(rights.scoped[0].resources, Some(vec!["configmaps".to_owned()]));
        assert!(rights.drop_resource("csidrivers") && rights.cluster.is_empty());
        assert!(!rights.drop_resource("secrets"));
    }

    #[test]
    fn unknown_lists_are_refused() {
        assert!(serde_saphyr::from_str::<Rights>("scopes: []").is_err());
    }
}
