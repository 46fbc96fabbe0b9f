//! The components that are installed, as their Deployments say. Pure but for the one list.

use std::collections::BTreeSet;
use std::fmt;

use api_types::names::DEFAULT_OPERATOR_NAMESPACE;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde::Serialize;

use crate::cluster::{Answer, Cluster, NoCluster, Right, list};

/// Label of every object of a component: which one.
const COMPONENT: &str = "app.kubernetes.io/component";
/// Selects the Deployments of the suite, in the charts and in `deploy/`.
const SELECTOR: &str = "app.kubernetes.io/part-of=kagenti-operator,app.kubernetes.io/component";

/// Where certificates that are given as files are mounted.
const CERTIFICATES: &str = "/tmp/k8s-webhook-server";

/// A version as releases have them; what stands behind the patch level is not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u64,
    pub(crate) minor: u64,
    patch: u64,
}

impl Version {
    /// Reads `1.2.3`, also with a leading `v` and with a pre-release or build behind it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let core = text.split(['-', '+']).next()?;
        let mut parts = core.split('.').map(|part| part.parse().ok());
        let version = Self { major: parts.next()??, minor: parts.next()??, patch: parts.next()?? };
        parts.next().is_none().then_some(version)
    }

    /// More than one minor version apart (packaging §15).
    pub(crate) fn is_far_from(self, other: Self) -> bool {
        self.major != other.major || self.minor.abs_diff(other.minor) > 1
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A component of the suite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Component {
    /// Which one, as its chart is named.
    #[serde(rename = "component")]
    pub(crate) name: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its Deployment.
    pub(crate) deployment: String,
    /// Tag of its image, or what the chart says where the tag is no version; empty when neither is one.
    pub(crate) version: String,
    /// The image.
    pub(crate) image: String,
    /// Replicas that are ready.
    pub(crate) ready: i32,
    /// Replicas that are asked for.
    pub(crate) replicas: i32,
    /// The namespaces it is limited to; empty = the whole cluster.
    pub(crate) watches: BTreeSet<String>,
    /// Whether its replicas elect a leader.
    #[serde(skip)]
    pub(crate) leader_elect: bool,
    /// Secret with the certificate it serves, where it names one.
    #[serde(skip)]
    pub(crate) certificate: Option<String>,
    /// What its Deployment says about Pods that cannot be made.
    #[serde(skip)]
    pub(crate) trouble: Vec<String>,
    /// What is left of a rollout that has not ended; what is ready may be of before.
    #[serde(skip)]
    pub(crate) rollout: Option<String>,
}

impl Component {
    /// What a Deployment with the labels of the suite runs.
    pub(crate) fn of(deployment: &Deployment) -> Option<Self> {
        let meta = &deployment.metadata;
        let label = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
        let component = label(COMPONENT)?.to_owned();
        let spec = deployment.spec.as_ref()?;
        let pod = spec.template.spec.as_ref()?;
        let containers = &pod.containers;
        let own = containers.iter().find(|c| c.name == component).or_else(|| containers.first())?;
        let image = own.image.clone().unwrap_or_default();
        let version = [tag(&image), label("app.kubernetes.io/version")].into_iter().flatten();
        let version = version.filter_map(Version::parse).map(|v| v.to_string()).next().unwrap_or_default();
        let args = own.args.as_deref().unwrap_or_default();
        let env = || {
            let env = own.env.iter().flatten().find(|env| env.name == "NAMESPACES2WATCH")?;
            env.value.as_deref()
        };
        let watches = flag(args, "--watch-namespaces").or_else(env).unwrap_or_default();
        Some(Self {
            namespace: meta.namespace.clone()?,
            deployment: meta.name.clone()?,
            leader_elect: flag(args, "--leader-elect") == Some("true"),
            certificate: flag(args, "--webhook-cert-secret").map(str::to_owned).or_else(|| mounted(pod, own)),
            trouble: trouble(deployment),
            rollout: rollout(deployment, if version.is_empty() { &image } else { &version }),
            ready: deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default(),
            replicas: spec.replicas.unwrap_or(1),
            watches: watches
                .split(',')
                .map(str::trim)
                .filter(|ns| !ns.is_empty())
                .map(str::to_owned)
                .collect(),
            name: component,
            version,
            image,
        })
    }

    /// Its version, if it has one that can be compared.
    pub(crate) fn parsed(&self) -> Option<Version> {
        Version::parse(&self.version)
    }

    /// `1/1`.
    pub(crate) fn readiness(&self) -> String {
        format!("{}/{}", self.ready, self.replicas)
    }

    /// Whether it looks after objects of a namespace.
    pub(crate) fn covers(&self, namespace: &str) -> bool {
        self.watches.is_empty() || self.watches.contains(namespace)
    }
}

/// The Secret that is mounted where certificates are given as files (packaging §8).
fn mounted(pod: &PodSpec, container: &Container) -> Option<String> {
    let mounts = container.volume_mounts.iter().flatten();
    let mount = mounts.into_iter().find(|mount| mount.mount_path.starts_with(CERTIFICATES))?;
    let volume = pod.volumes.iter().flatten().find(|volume| volume.name == mount.name)?;
    volume.secret.as_ref()?.secret_name.clone()
}

/// Why Pods could not be made.
fn trouble(deployment: &Deployment) -> Vec<String> {
    let conditions = deployment.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let failures =
        conditions.filter(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True");
    failures.filter_map(|condition| condition.message.clone()).collect()
}

/// How far a rollout to a version is that has not ended. Pods of before stay until new ones are ready, so readiness says nothing.
fn rollout(deployment: &Deployment, version: &str) -> Option<String> {
    let replicas = deployment.spec.as_ref()?.replicas.unwrap_or(1);
    let status = deployment.status.as_ref();
    let count = |field: fn(&DeploymentStatus) -> Option<i32>| status.and_then(field).unwrap_or_default();
    let (all, new) = (count(|status| status.replicas), count(|status| status.updated_replicas));
    let observed = status.and_then(|status| status.observed_generation).unwrap_or_default();
    if replicas == 0 {
        None
    } else if observed < deployment.metadata.generation.unwrap_or_default() {
        Some(format!("rollout to {version} not begun"))
    } else if new < replicas || new < all {
        let old = (all - new).max(0);
        Some(format!("rollout to {version} under way ({new}/{replicas} Pods made, {old} older left)"))
    } else {
        None
    }
}

/// The tag of an image; none when a digest alone names it.
fn tag(image: &str) -> Option<&str> {
    let name = image.split('@').next()?;
    name.rsplit('/').next()?.split_once(':').map(|(_, tag)| tag)
}

/// The last value of a flag, `--flag=value` or `--flag value`: the last one counts.
fn flag<'a>(args: &'a [String], name: &str) -> Option<&'a str> {
    let mut found = None;
    for (index, arg) in args.iter().enumerate() {
        match arg.strip_prefix(name) {
            Some("") => found = args.get(index + 1).map(String::as_str),
            Some(rest) => found = rest.strip_prefix('=').or(found),
            None => {}
        }
    }
    found
}

/// What could be found out about the components.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Sorted by namespace and component.
    pub(crate) components: Vec<Component>,
    /// Why there may be more.
    pub(crate) unknown: Option<String>,
}

/// Looks for the components in one namespace, or everywhere; who may not look everywhere sees the suite's usual
/// namespace at least.
pub(crate) async fn find(cluster: &Cluster, namespace: Option<&str>) -> Result<Found, NoCluster> {
    let mut found = Found::default();
    let deployments = match in_namespace(cluster, namespace).await? {
        Answer::Known(deployments) => deployments,
        Answer::Unknown(why) => {
            found.unknown = Some(format!("which components are installed: {why}"));
            match namespace {
                Some(_) => Vec::new(),
                None => match in_namespace(cluster, Some(DEFAULT_OPERATOR_NAMESPACE)).await? {
                    Answer::Known(deployments) => deployments,
                    Answer::Unknown(_) => Vec::new(),
                },
            }
        }
    };
    found.components = deployments.iter().filter_map(Component::of).collect();
    found
        .components
        .sort_by(|a, b| (&a.namespace, &a.name, &a.deployment).cmp(&(&b.namespace, &b.name, &b.deployment)));
    Ok(found)
}

async fn in_namespace(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> Result<Answer<Vec<Deployment>>, NoCluster> {
    let needs = Right::new("list", "deployments.apps", namespace);
    cluster.answer(&needs, list(&cluster.api(namespace), SELECTOR).await)
}

#[cfg(test)]
pub(crate) mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    /// A Deployment as the charts make them.
    pub(crate) fn deployment(component: &str, image: &str, args: &Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": format!("kagenti-{component}"), "namespace": "kagenti-system", "labels": {
                COMPONENT: component, "app.kubernetes.io/version": "0.3.1",
            }},
            "spec": {"selector": {}, "template": {"spec": {"containers": [
                {"name": "mesh", "image": "mesh:9.9.9"}, {"name": component, "image": image, "args": args},
            ]}}},
            "status": {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1},
        }))
        .expect("a Deployment")
    }

    #[rstest]
    #[case("0.1.0", Some("0.1.0"))]
    #[case("v1.20.3-rc.1+g1", Some("1.20.3"))]
    #[case("1.2", None)]
    #[case("1.2.3.4", None)]
    #[case("latest", None)]
    #[case("", None)]
    fn versions(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(Version::parse(text).map(|version| version.to_string()).as_deref(), expected);
    }

    /// Packaging §15: one minor of skew is tolerated.
    #[rstest]
    #[case("0.1.0", "0.2.9", false)]
    #[case("0.3.0", "0.1.0", true)]
    #[case("1.0.0", "0.9.0", true)]
    fn skew(#[case] one: &str, #[case] other: &str, #[case] far: bool) {
        let version = |text| Version::parse(text).expect("a version");
        assert_eq!(version(one).is_far_from(version(other)), far);
        assert_eq!(version(other).is_far_from(version(one)), far);
    }

    /// The image runs, whatever the label says; where it names no version the chart's word counts.
    #[rstest]
    #[case("ghcr.io/kagenti/kagenti-operator/card-ctl:0.2.0", "0.2.0")]
    #[case("registry:5000/card-ctl:v0.2.0@sha256:00", "0.2.0")]
    #[case("registry:5000/card-ctl@sha256:00", "0.3.1")]
    #[case("registry:5000/card-ctl", "0.3.1")]
    #[case("card-ctl:main", "0.3.1")]
    fn the_version_is_that_of_the_image(#[case] image: &str, #[case] expected: &str) {
        let component = Component::of(&deployment("card-ctl", image, &json!([]))).expect("a component");
        assert_eq!(component.version, expected);
        assert_eq!(component.readiness(), "1/1");
    }

    /// What `check` asks of a Deployment beside its version.
    #[test]
    fn certificates_leaders_and_trouble() {
        let args = json!(["--leader-elect=true", "--webhook-cert-secret=own"]);
        let component = |d: &Deployment| Component::of(d).expect("a component");
        let given = component(&deployment("authbridge-webhook", "x:0.1.0", &args));
        assert!(given.leader_elect);
        assert_eq!((given.certificate.as_deref(), given.trouble.len()), (Some("own"), 0));

        let mut files =
            serde_json::to_value(deployment("authbridge-webhook", "x:0.1.0", &json!([]))).expect("JSON");
        let pod = &mut files["spec"]["template"]["spec"];
        pod["volumes"] = json!([{"name": "cert", "secret": {"secretName": "mine"}}]);
        pod["containers"][1]["volumeMounts"] =
            json!([{"name": "cert", "mountPath": "/tmp/k8s-webhook-server/serving-certs"}]);
        files["status"]["conditions"] = json!([
            {"type": "Available", "status": "False", "message": "no"},
            {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"},
        ]);
        let files = component(&serde_json::from_value(files).expect("a Deployment"));
        assert_eq!(files.certificate.as_deref(), Some("mine"));
        assert_eq!(files.trouble, ["exceeded quota"]);
        assert!(!files.leader_elect);
    }

    /// A Pod of before is ready, and what was asked for is not there, or not yet.
    #[rstest]
    #[case::ended(json!({"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "observedGeneration": 2}), None)]
    #[case::surge(json!({"replicas": 2, "updatedReplicas": 1, "readyReplicas": 1, "observedGeneration": 2}),
        Some("rollout to 0.2.0 under way (1/1 Pods made, 1 older left)"))]
    #[case::none_made(json!({"replicas": 1, "readyReplicas": 1, "observedGeneration": 2}),
        Some("rollout to 0.2.0 under way (0/1 Pods made, 1 older left)"))]
    #[case::stale(json!({"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "observedGeneration": 1}),
        Some("rollout to 0.2.0 not begun"))]
    #[case::unseen(json!({}), Some("rollout to 0.2.0 not begun"))]
    fn rollouts(#[case] status: Value, #[case] expected: Option<&str>) {
        let mut live = serde_json::to_value(deployment("card-ctl", "x:0.2.0", &json!([]))).expect("JSON");
        live["metadata"]["generation"] = 2.into();
        live["status"] = status;
        let component = |live: &Value| {
            let live: Deployment = serde_json::from_value(live.clone()).expect("a Deployment");
            Component::of(&live).expect("a component")
        };
        assert_eq!(component(&live).rollout.as_deref(), expected);
        live["spec"]["replicas"] = 0.into();
        assert_eq!(component(&live).rollout, None, "nothing is asked for");
    }

    #[rstest]
    #[case(json!([]), &["team1", "team2"])]
    #[case(json!(["--watch-namespaces= team1, "]), &["team1"])]
    #[case(json!(["--watch-namespaces=team2", "--watch-namespaces", "team1"]), &["team1"])]
    #[case(json!(["--watch-namespaces-x=team2", "--watch-namespaces=team1"]), &["team1"])]
    fn scopes(#[case] args: Value, #[case] covered: &[&str]) {
        let component = Component::of(&deployment("card-ctl", "card-ctl:0.1.0", &args)).expect("a component");
        let covers: Vec<&str> = ["team1", "team2"].into_iter().filter(|ns| component.covers(ns)).collect();
        assert_eq!(covers, covered);
    }
}
