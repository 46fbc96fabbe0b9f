//! The components: ready or not, and why; whether they fit together; whether two of them do the same work.

use std::cmp::Reverse;

use k8s_openapi::api::core::v1::Pod;

use crate::cluster::{Cluster, NoCluster, Right, list};
use crate::installation::{Component, Found};
use crate::version;

use super::finding::{Finding, known};

const CHECK: &str = "components";
/// What is said of one component's Pods at most.
const NAMED: usize = 3;

pub(super) async fn check(cluster: &Cluster, found: &Found) -> Result<Vec<Finding>, NoCluster> {
    let mut findings = Vec::new();
    if let Some(unknown) = &found.unknown {
        findings.push(Finding::unknown(CHECK, "all namespaces", unknown));
    } else if found.components.is_empty() {
        findings.push(Finding::failed(
            CHECK,
            "no component of the suite is installed",
            "helm install kagenti-operator charts/kagenti-operator -n kagenti-system --create-namespace",
        ));
    }
    for component in &found.components {
        let mut reasons = Vec::new();
        if component.ready < component.replicas || component.rollout.is_some() {
            let namespace = Some(component.namespace.as_str());
            let selector = format!(
                "app.kubernetes.io/part-of=kagenti-operator,app.kubernetes.io/component={}",
                component.name
            );
            let pods = list(&cluster.api::<Pod>(namespace), &selector).await;
            let about = format!("the Pods of {}", component.deployment);
            match known(CHECK, &about, cluster.answer(&Right::new("list", "pods", namespace), pods)?) {
                Ok(pods) => reasons = all_reasons(pods),
                Err(unknown) => findings.push(unknown),
            }
        }
        findings.push(judge(component, reasons));
    }
    findings.extend(overlaps(&found.components));
    findings.extend(version::skew(&found.components).into_iter().map(|skew| {
        Finding::warning(
            CHECK,
            skew,
            "helm list --all-namespaces   # which release is which; then helm upgrade",
        )
    }));
    Ok(findings)
}

fn judge(component: &Component, mut reasons: Vec<String>) -> Finding {
    let Component { deployment, namespace, replicas, ready, rollout, .. } = component;
    let name = format!("{deployment} in namespace {namespace}");
    if *replicas == 0 {
        let remedy = format!("kubectl -n {namespace} scale deployment {deployment} --replicas=1");
        return Finding::warning(CHECK, format!("{name} is scaled to 0: nobody does its work"), remedy);
    }
    if ready >= replicas && rollout.is_none() {
        return Finding::ok(CHECK, format!("{name}: {} ready, {}", component.readiness(), component.version));
    }
    reasons.splice(0..0, component.trouble.clone());
    reasons.truncate(NAMED);
    let why = if reasons.is_empty() { "its Pods do not say why".to_owned() } else { reasons.join("; ") };
    // In a rollout the Deployment's port may be that of a Pod of before.
    let remedy = if rollout.is_none() && reasons.iter().any(|reason| reason.contains("not ready")) {
        format!(
            "kubectl -n {namespace} port-forward deployment/{deployment} 8081 & curl -s 'localhost:8081/readyz?verbose'"
        )
    } else {
        format!(
            "kubectl -n {namespace} describe pods -l app.kubernetes.io/component={}; kubectl -n {namespace} logs deployment/{deployment}",
            component.name
        )
    };
    let rollout = rollout.as_ref().map(|rollout| format!(", {rollout}")).unwrap_or_default();
    Finding::failed(CHECK, format!("{name}: {} ready{rollout}: {why}", component.readiness()), remedy)
}

/// What keeps Pods from being ready: of the youngest first, for in a rollout the others are of before.
fn all_reasons(mut pods: Vec<Pod>) -> Vec<String> {
    pods.sort_by_key(|Pod { metadata, .. }| {
        let made = metadata.creation_timestamp.as_ref().map(|time| time.0);
        (metadata.deletion_timestamp.is_some(), Reverse(made))
    });
    pods.iter().flat_map(pod_reasons).collect()
}

/// What keeps a Pod from being ready.
fn pod_reasons(pod: &Pod) -> Vec<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let Some(status) = &pod.status else { return Vec::new() };
    let mut reasons = Vec::new();
    for container in status.container_statuses.iter().flatten().filter(|container| !container.ready) {
        let state = container.state.as_ref();
        let ended = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let ended = ended.or_else(|| state.and_then(|state| state.terminated.as_ref()));
        let ended = ended.map_or_else(String::new, |ended| {
            let reason = ended.reason.as_deref().unwrap_or("Error");
            format!(", ended before with {reason}, exit code {}", ended.exit_code)
        });
        if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
            let reason = waiting.reason.as_deref().unwrap_or("waiting");
            let message = waiting.message.as_deref().map(|text| format!(" ({text})")).unwrap_or_default();
            reasons.push(format!("Pod {name}: {reason}{message}{ended}"));
        } else if state.is_some_and(|state| state.running.is_some()) {
            reasons.push(format!("Pod {name} runs and is not ready{ended}"));
        } else {
            reasons.push(format!("Pod {name}: does not run{ended}"));
        }
    }
    if reasons.is_empty() {
        let conditions = status.conditions.iter().flatten();
        let bad = conditions.filter(|c| c.type_ == "PodScheduled" && c.status == "False");
        reasons
            .extend(bad.filter_map(|c| Some(format!("Pod {name} has no node: {}", c.message.as_deref()?))));
    }
    reasons
}

/// Two releases of one component that look after the same namespaces fight over every object there (packaging §7).
fn overlaps(components: &[Component]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, one) in components.iter().enumerate() {
        for other in components.iter().skip(index + 1).filter(|other| other.name == one.name) {
            let shared = match (one.watches.is_empty(), other.watches.is_empty()) {
                (true, true) => Some("the whole cluster".to_owned()),
                (true, false) => Some(join(other.watches.iter())),
                (false, true) => Some(join(one.watches.iter())),
                (false, false) => {
                    Some(join(one.watches.intersection(&other.watches))).filter(|text| !text.is_empty())
                }
            };
            if let Some(shared) = shared {
                findings.push(Finding::failed(
                    CHECK,
                    format!(
                        "{} in namespace {} and {} in namespace {} look after the same objects: {shared}",
                        one.deployment, one.namespace, other.deployment, other.namespace
                    ),
                    format!(
                        "uninstall one of them, or limit them to different namespaces: --set {}.watchNamespaces=...",
                        one.name
                    ),
                ));
            }
        }
    }
    findings
}

fn join<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::super::finding::Verdict;
    use super::*;
    use crate::installation::tests::deployment;

    fn component(namespace: &str, watches: &str) -> Component {
        let args = json!([format!("--watch-namespaces={watches}")]);
        let mut component = Component::of(&deployment("card-ctl", "x:0.1.0", &args)).expect("a component");
        namespace.clone_into(&mut component.namespace);
        component
    }

    #[rstest]
    #[case(0, 0, Verdict::Warning, "scaled to 0")]
    #[case(1, 1, Verdict::Ok, "1/1 ready, 0.1.0")]
    #[case(2, 1, Verdict::Failed, "1/2 ready: quota; Pod a: ImagePullBackOff")]
    fn readiness(#[case] replicas: i32, #[case] ready: i32, #[case] verdict: Verdict, #[case] says: &str) {
        let mut one = component("a", "");
        (one.replicas, one.ready, one.trouble) = (replicas, ready, vec!["quota".into()]);
        let finding = judge(&one, vec!["Pod a: ImagePullBackOff".into()]);
        assert_eq!(finding.result, verdict);
        assert!(finding.message.contains(says), "{finding:?}");
    }

    /// An upgrade to what cannot run is not fine, although the Pod of before is ready.
    #[test]
    fn a_rollout_that_has_not_ended() {
        let mut one = component("a", "");
        one.rollout = Some("rollout to 0.2.0 under way (1/1 Pods made, 1 older left)".into());
        let finding = judge(&one, vec!["Pod new: ImagePullBackOff".into()]);
        assert_eq!(finding.result, Verdict::Failed);
        assert!(
            finding.message.ends_with(
                ": 1/1 ready, rollout to 0.2.0 under way (1/1 Pods made, 1 older left): Pod new: ImagePullBackOff"
            ),
            "{finding:?}"
        );
    }

    #[test]
    fn new_pods_speak_first() {
        let pod = |name: &str, made: &str, ends: Option<&str>| -> Pod {
            let conditions = json!([{"type": "PodScheduled", "status": "False", "message": "no"}]);
            let meta = json!({"name": name, "creationTimestamp": made, "deletionTimestamp": ends});
            serde_json::from_value(json!({"metadata": meta, "status": {"conditions": conditions}}))
                .expect("a Pod")
        };
        let pods = vec![
            pod("ends", "2026-01-03T00:00:00Z", Some("2026-01-04T00:00:00Z")),
            pod("old", "2026-01-01T00:00:00Z", None),
            pod("new", "2026-01-02T00:00:00Z", None),
        ];
        assert_eq!(
            all_reasons(pods),
            ["new", "old", "ends"].map(|name| format!("Pod {name} has no node: no"))
        );
    }

    #[rstest]
    #[case::image(json!({"state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}), "Pod a: ImagePullBackOff (not found)")]
    #[case::crash(json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}),
        "Pod a: CrashLoopBackOff, ended before with OOMKilled, exit code 137")]
    #[case::unready(json!({"state": {"running": {}}}), "Pod a runs and is not ready")]
    fn pods_say_why(#[case] container: Value, #[case] says: &str) {
        let mut status = container;
        for (key, value) in [
            ("name", json!("c")),
            ("ready", json!(false)),
            ("image", json!("x")),
            ("imageID", json!("")),
            ("restartCount", json!(1)),
        ] {
            status[key] = value;
        }
        let pod = json!({"metadata": {"name": "a"}, "status": {"containerStatuses": [status]}});
        assert_eq!(pod_reasons(&serde_json::from_value(pod).expect("a Pod")), [says]);
    }

    #[test]
    fn a_pod_without_node_says_why() {
        let pod = json!({"metadata": {"name": "a"}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]}});
        let reasons = pod_reasons(&serde_json::from_value(pod).expect("a Pod"));
        assert_eq!(reasons, ["Pod a has no node: 0/1 nodes are available"]);
    }

    #[rstest]
    #[case("", "", Some("the whole cluster"))]
    #[case("team1,team2", "", Some("team1, team2"))]
    #[case("team1,team2", "team2,team3", Some("team2"))]
    #[case("team1", "team2", None)]
    fn two_releases(#[case] one: &str, #[case] other: &str, #[case] shared: Option<&str>) {
        let findings = overlaps(&[component("a", one), component("b", other)]);
        match shared {
            None => assert_eq!(findings, []),
            Some(shared) => assert!(findings[0].message.ends_with(&format!(": {shared}")), "{findings:?}"),
        }
    }
}
