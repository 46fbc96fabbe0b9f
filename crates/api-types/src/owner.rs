//! From a Pod to the workload it belongs to (webhook §6; runtime §8.3).

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use sha2::{Digest, Sha256};

use crate::names::label;

/// A workload: the top-level owner of a Pod. `kind` is empty when only the name is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Workload {
    /// API group; empty for the core group and when the kind is unknown.
    pub group: String,
    /// Kind, for example `Deployment`; empty when unknown.
    pub kind: String,
    /// Name, never empty for a Pod that has a name, a generateName or a uid.
    pub name: String,
}

/// What of a Pod decides about its workload.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodIdentity<'a> {
    /// `metadata.name`; empty when the API server is yet to generate it.
    pub name: &'a str,
    /// `metadata.generateName`; empty when absent.
    pub generate_name: &'a str,
    /// `metadata.uid`; empty at admission of a create.
    pub uid: &'a str,
    /// `metadata.labels`.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// The controller among the ownerReferences, see [`controller_of`].
    pub owner: Option<&'a OwnerReference>,
}

/// The controller of a ReplicaSet or Job, as a live read found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveOwner {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// uid, for ownerReferences.
    pub uid: String,
}

/// An object whose controller is worth a metadata read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerToRead<'a> {
    /// `ReplicaSet` (group apps) or `Job` (group batch).
    pub kind: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its uid; the key of a cache.
    pub uid: &'a str,
}

/// The ownerReference with `controller: true`; others are ignored.
pub fn controller_of(owners: &[OwnerReference]) -> Option<&OwnerReference> {
    owners.iter().find(|owner| owner.controller == Some(true))
}

/// The group of an `apiVersion`; empty for the core group.
pub fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// The object to read before [`workload_of`] can name the workload exactly; `None` = the Pod says it all.
///
/// A ReplicaSet whose name ends in the Pod's `pod-template-hash` needs no read: it belongs to a Deployment.
pub fn needs_live_owner<'a>(pod: &PodIdentity<'a>) -> Option<OwnerToRead<'a>> {
    let owner = pod.owner?;
    let read = match (group_of(&owner.api_version), owner.kind.as_str()) {
        ("apps", "ReplicaSet") => strip_hash(pod, &owner.name).is_none(),
        ("batch", "Job") => true,
        _ => false,
    };
    read.then_some(OwnerToRead { kind: &owner.kind, name: &owner.name, uid: &owner.uid })
}

/// The workload of a Pod. `live` is the controller of the object [`needs_live_owner`] named; `None` when it has
/// none, is gone, or was not read.
pub fn workload_of(pod: &PodIdentity<'_>, live: Option<&LiveOwner>) -> Workload {
    let Some(owner) = pod.owner else { return without_owner(pod) };
    let named = |group: &str, kind: &str, name: &str| Workload {
        group: group.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
    };
    let of_live = |live: &LiveOwner| named(&live.group, &live.kind, &live.name);
    match (group_of(&owner.api_version), owner.kind.as_str()) {
        ("apps", "ReplicaSet") => match (strip_hash(pod, &owner.name), live) {
            (Some(name), _) => named("apps", "Deployment", name),
            (None, Some(live)) => of_live(live),
            (None, None) => named("", "", &owner.name),
        },
        ("batch", "Job") => match live {
            Some(live) if live.kind == "CronJob" && live.group == "batch" => of_live(live),
            _ => named("batch", "Job", &owner.name),
        },
        (group, kind) => named(group, kind, &owner.name),
    }
}

fn without_owner(pod: &PodIdentity<'_>) -> Workload {
    let generated = pod.generate_name.trim_end_matches('-');
    if !generated.is_empty() {
        return match strip_hash(pod, generated) {
            Some(name) => Workload { group: "apps".into(), kind: "Deployment".into(), name: name.into() },
            None => Workload { name: generated.into(), ..Workload::default() },
        };
    }
    let name = if pod.name.is_empty() { pod.uid } else { pod.name };
    Workload { name: name.into(), ..Workload::default() }
}

/// `name` without `-<pod-template-hash>`, when it ends so and something is left.
fn strip_hash<'n>(pod: &PodIdentity<'_>, name: &'n str) -> Option<&'n str> {
    let hash = pod.labels?.get(label::POD_TEMPLATE_HASH).filter(|hash| !hash.is_empty())?;
    name.strip_suffix(hash.as_str())?.strip_suffix('-').filter(|rest| !rest.is_empty())
}

/// The workload's name as part of the names of generated objects (webhook §6): unchanged unless
/// `authbridge-config-<name>` would exceed 253 characters, then its first 200 and 8 hex of its SHA-256.
pub fn object_name_part(workload: &str) -> Cow<'_, str> {
    const LIMIT: usize = 253 - "authbridge-config-".len();
    if workload.len() <= LIMIT {
        return Cow::Borrowed(workload);
    }
    let mut name: String = workload.chars().take(200).collect();
    name.push('-');
    for byte in Sha256::digest(workload).iter().take(4) {
        let _ = write!(name, "{byte:02x}");
    }
    Cow::Owned(name)
}

/// Name of the per-workload ConfigMap with the sidecar's `config.yaml` (webhook §12.1).
pub fn config_map_name(workload: &str) -> String {
    format!("authbridge-config-{}", object_name_part(workload))
}

/// Name of the per-workload ConfigMap with `envoy.yaml` (webhook §12.2).
pub fn envoy_config_map_name(workload: &str) -> String {
    format!("envoy-config-{}", object_name_part(workload))
}

/// Name of the Secret, and of the Certificate that fills it, with the TLS-bridge CA (runtime §15, webhook §11.4).
pub fn tls_bridge_secret_name(workload: &str) -> String {
    format!("{}-tls-bridge-ca", object_name_part(workload))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn reference(api_version: &str, kind: &str, name: &str) -> OwnerReference {
        OwnerReference {
            api_version: api_version.into(),
            kind: kind.into(),
            name: name.into(),
            uid: "uid-1".into(),
            controller: Some(true),
            block_owner_deletion: None,
        }
    }

    fn labels(hash: &str) -> BTreeMap<String, String> {
        if hash.is_empty() {
            BTreeMap::new()
        } else {
            BTreeMap::from([(label::POD_TEMPLATE_HASH.to_owned(), hash.to_owned())])
        }
    }

    fn workload(group: &str, kind: &str, name: &str) -> Workload {
        Workload { group: group.into(), kind: kind.into(), name: name.into() }
    }

    /// Webhook §6 rule 1, without a live read.
    #[rstest]
    #[case("apps/v1", "StatefulSet", "db", "", workload("apps", "StatefulSet", "db"), false)]
    #[case(
        "agents.x-k8s.io/v1alpha1",
        "Sandbox",
        "box",
        "",
        workload("agents.x-k8s.io", "Sandbox", "box"),
        false
    )]
    #[case(
        "apps/v1",
        "ReplicaSet",
        "myapp-7d4f8b9c5",
        "7d4f8b9c5",
        workload("apps", "Deployment", "myapp"),
        false
    )]
    #[case(
        "apps/v1",
        "ReplicaSet",
        "my-app-1-7d4f8b9c5",
        "7d4f8b9c5",
        workload("apps", "Deployment", "my-app-1"),
        false
    )]
    #[case("apps/v1", "ReplicaSet", "myapp-7d4f8b9c5", "", workload("", "", "myapp-7d4f8b9c5"), true)]
    #[case("apps/v1", "ReplicaSet", "myapp-7d4f8b9c5", "other", workload("", "", "myapp-7d4f8b9c5"), true)]
    #[case("apps/v1", "ReplicaSet", "7d4f8b9c5", "7d4f8b9c5", workload("", "", "7d4f8b9c5"), true)]
    #[case("apps/v1", "ReplicaSet", "-7d4f8b9c5", "7d4f8b9c5", workload("", "", "-7d4f8b9c5"), true)]
    #[case(
        "apps/v1",
        "ReplicaSet",
        "xmyapp7d4f8b9c5",
        "7d4f8b9c5",
        workload("", "", "xmyapp7d4f8b9c5"),
        true
    )]
    #[case("apps/v1", "DaemonSet", "d", "", workload("apps", "DaemonSet", "d"), false)]
    #[case("batch/v1", "Job", "run-123", "", workload("batch", "Job", "run-123"), true)]
    #[case("v1", "ReplicationController", "rc", "", workload("", "ReplicationController", "rc"), false)]
    #[case(
        "argoproj.io/v1alpha1",
        "ReplicaSet",
        "x-abc",
        "abc",
        workload("argoproj.io", "ReplicaSet", "x-abc"),
        false
    )]
    #[case("example.com/v1", "StatefulSet", "db", "", workload("example.com", "StatefulSet", "db"), false)]
    fn from_the_owner_reference(
        #[case] api_version: &str,
        #[case] kind: &str,
        #[case] name: &str,
        #[case] hash: &str,
        #[case] expected: Workload,
        #[case] wants_live: bool,
    ) {
        let (owner, labels) = (reference(api_version, kind, name), labels(hash));
        let pod = PodIdentity {
            name: "pod",
            generate_name: "ignored-",
            labels: Some(&labels),
            owner: Some(&owner),
            ..PodIdentity::default()
        };
        assert_eq!(workload_of(&pod, None), expected);
        assert_eq!(
            needs_live_owner(&pod).map(|read| (read.kind, read.name, read.uid)),
            wants_live.then_some((kind, name, "uid-1"))
        );
    }

    /// Webhook §6 rule 1, with the owner of the owner.
    #[rstest]
    #[case::argo("apps/v1", "ReplicaSet", "r-abc", ("argoproj.io", "Rollout", "r"), workload("argoproj.io", "Rollout", "r"))]
    #[case::cron("batch/v1", "Job", "run-123", ("batch", "CronJob", "run"), workload("batch", "CronJob", "run"))]
    #[case::other_job_owner("batch/v1", "Job", "run-123", ("x.io", "Workflow", "w"), workload("batch", "Job", "run-123"))]
    #[case::unasked("apps/v1", "StatefulSet", "db", ("x.io", "Cluster", "c"), workload("apps", "StatefulSet", "db"))]
    fn with_a_live_owner(
        #[case] api_version: &str,
        #[case] kind: &str,
        #[case] name: &str,
        #[case] live: (&str, &str, &str),
        #[case] expected: Workload,
    ) {
        let owner = reference(api_version, kind, name);
        let pod = PodIdentity { owner: Some(&owner), ..PodIdentity::default() };
        let live =
            LiveOwner { group: live.0.into(), kind: live.1.into(), name: live.2.into(), uid: "uid-2".into() };
        assert_eq!(workload_of(&pod, Some(&live)), expected);
    }

    /// Webhook §6 rules 2 and 3, and its examples.
    #[rstest]
    #[case("", "myapp-7d4f8b9c5-", "", "", workload("", "", "myapp-7d4f8b9c5"))]
    #[case("", "myapp-", "", "", workload("", "", "myapp"))]
    #[case("pod", "gen-", "", "", workload("", "", "gen"))]
    #[case("", "myapp-7d4f8b9c5-", "", "7d4f8b9c5", workload("apps", "Deployment", "myapp"))]
    #[case("", "7d4f8b9c5-", "", "7d4f8b9c5", workload("", "", "7d4f8b9c5"))]
    #[case("pod", "---", "", "", workload("", "", "pod"))]
    #[case("pod", "", "u", "", workload("", "", "pod"))]
    #[case("", "", "u", "", workload("", "", "u"))]
    fn without_a_controller(
        #[case] name: &str,
        #[case] generate_name: &str,
        #[case] uid: &str,
        #[case] hash: &str,
        #[case] expected: Workload,
    ) {
        let labels = labels(hash);
        let pod = PodIdentity { name, generate_name, uid, labels: Some(&labels), owner: None };
        assert_eq!(workload_of(&pod, None), expected);
        assert_eq!(needs_live_owner(&pod), None);
    }

    #[test]
    fn only_the_controller_counts() {
        let mut owners =
            vec![reference("v1", "A", "a"), reference("v1", "B", "b"), reference("v1", "C", "c")];
        owners[0].controller = None;
        owners[1].controller = Some(false);
        assert_eq!(controller_of(&owners).map(|owner| owner.name.as_str()), Some("c"));
        assert_eq!(controller_of(&owners[..2]), None);
    }

    #[test]
    fn long_names_are_shortened_alike_everywhere() {
        assert_eq!(config_map_name("weather"), "authbridge-config-weather");
        assert_eq!(envoy_config_map_name("weather"), "envoy-config-weather");
        assert_eq!(tls_bridge_secret_name("weather"), "weather-tls-bridge-ca");
        let fits = "a".repeat(253 - "authbridge-config-".len());
        assert_eq!(config_map_name(&fits).len(), 253);
        let long = "a".repeat(fits.len() + 1);
        let part = object_name_part(&long);
        assert_eq!(part.len(), 209);
        assert_eq!(&part[..201], format!("{}-", "a".repeat(200)));
        assert!(config_map_name(&long).starts_with("authbridge-config-aaa"));
        assert_ne!(object_name_part(&long), object_name_part(&format!("{long}a")));
    }
}
