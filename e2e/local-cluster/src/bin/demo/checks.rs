//! What must be true at the end of the quick start.

use api_types::names::{condition, label, reason};
use api_types::registration::condition as registration;
use api_types::{AgentCard, AgentRuntime, Phase};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use std::collections::BTreeMap;

use super::agent;

/// Container that the webhook adds.
const SIDECAR: &str = "authbridge-proxy";

/// Condition of the AgentRuntime that mlflow-ctl sets.
const MLFLOW_CONFIGURED: &str = "MLflowConfigured";

/// Everything the checks look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) runtime: Option<AgentRuntime>,
    pub(crate) deployment: Option<Deployment>,
    /// Pods of the workload that are not being deleted.
    pub(crate) pods: Vec<Pod>,
    /// ReplicaSets of the workload.
    pub(crate) replica_sets: usize,
    pub(crate) card: Option<AgentCard>,
    /// The policy that follows the verdict on the card.
    pub(crate) policy: Option<NetworkPolicy>,
}

/// What the demo looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scene {
    /// The quick start on a cluster with nothing but Kubernetes.
    Bare,
    /// The quick start with Keycloak and MLflow beside the cluster.
    Full,
    /// The quick start on somebody's cluster.
    Foreign,
    /// The quick start on a bare cluster where cards have to be signed, and this one is not.
    Unsigned,
    /// The card is signed.
    Signed,
    /// The card was changed after it was signed.
    Tampered,
}

/// A statement and whether it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) text: String,
    pub(crate) holds: bool,
}

impl Snapshot {
    /// The statements that hold at the end of a scene.
    pub(crate) fn checks(&self, scene: Scene) -> Vec<Check> {
        let mut checks = match scene {
            Scene::Bare | Scene::Full | Scene::Foreign | Scene::Unsigned => self.enrolment(scene),
            Scene::Signed | Scene::Tampered => Vec::new(),
        };
        let card = |name: &str| self.card_state(name).map(|c| (c.status.as_str(), c.reason.as_str()));
        let verified = card("Verified");
        let check = |text: &str, holds: bool| Check { text: text.to_owned(), holds };
        match scene {
            Scene::Bare | Scene::Full => {
                let name =
                    self.card.as_ref().and_then(|card| card.status.as_ref()?.card.as_ref()?.name.as_deref());
                let synced = card("Synced") == Some(("True", "SyncSucceeded"));
                checks.push(check(
                    "AgentCard weather-agent-deployment-card holds the card that the agent serves",
                    synced && name == Some(agent::NAME),
                ));
            }
            Scene::Foreign => {}
            Scene::Unsigned => {
                checks.push(check(
                    "the unsigned card is not Verified",
                    verified == Some(("False", "SignatureInvalid")),
                ));
                checks.push(check(
                    "a NetworkPolicy isolates the agent",
                    self.traffic() == Some(Traffic::Isolated),
                ));
            }
            Scene::Signed => {
                checks.push(check(
                    "the signed card is Verified",
                    verified == Some(("True", "SignatureVerified")),
                ));
                checks.push(check(
                    "it is Bound to the identity that signed it",
                    card("Bound") == Some(("True", "Bound")),
                ));
                checks.push(check(
                    "the NetworkPolicy lets the agent talk",
                    self.traffic() == Some(Traffic::Open),
                ));
            }
            Scene::Tampered => {
                checks.push(check(
                    "the tampered card is not Verified",
                    verified == Some(("False", "SignatureInvalid")),
                ));
                checks.push(check(
                    "the NetworkPolicy isolates the agent again",
                    self.traffic() == Some(Traffic::Isolated),
                ));
            }
        }
        checks
    }

    /// A condition of the AgentCard.
    pub(crate) fn card_state(&self, name: &str) -> Option<&Condition> {
        self.card_conditions().iter().find(|condition| condition.type_ == name)
    }

    /// The AgentCard's conditions.
    pub(crate) fn card_conditions(&self) -> &[Condition] {
        let status = self.card.as_ref().and_then(|card| card.status.as_ref());
        status.map(|status| status.conditions.as_slice()).unwrap_or_default()
    }

    /// What the NetworkPolicy allows.
    pub(crate) fn traffic(&self) -> Option<Traffic> {
        let spec = self.policy.as_ref()?.spec.as_ref()?;
        let everything = |rule: &k8s_openapi::api::networking::v1::NetworkPolicyEgressRule| {
            rule.to.as_ref().is_none_or(Vec::is_empty) && rule.ports.as_ref().is_none_or(Vec::is_empty)
        };
        let open = spec.egress.iter().flatten().any(everything);
        Some(if open { Traffic::Open } else { Traffic::Isolated })
    }

    fn enrolment(&self, scene: Scene) -> Vec<Check> {
        let status = self.runtime.as_ref().and_then(|runtime| runtime.status.as_ref());
        let state = |name: &str| {
            let found = self.conditions().iter().find(|condition| condition.type_ == name);
            found.map(|condition| (condition.status.as_str(), condition.reason.as_str()))
        };
        let is_true = |name: &str| state(name).is_some_and(|(status, _)| status == "True");
        let check = |text: &str, holds: bool| Check { text: text.to_owned(), holds };
        let mut checks = vec![
            check(
                "AgentRuntime weather-agent-runtime is Active",
                status.is_some_and(|status| status.phase == Some(Phase::Active)),
            ),
            check(
                "its conditions Ready and PodsConfigured are True",
                is_true(condition::READY) && is_true(condition::PODS_CONFIGURED),
            ),
            check(
                "one Pod runs, with the AuthBridge sidecar beside the agent",
                self.pods.len() == 1 && self.pods.iter().all(protected),
            ),
            check(
                "the Pod is labelled as an enrolled agent",
                self.pods.iter().all(enrolled) && !self.pods.is_empty(),
            ),
        ];
        if scene == Scene::Full {
            checks.extend([
                // The two patches may come together or one after the other.
                check(
                    "enrolling took one rollout, and its experiment at most one more",
                    matches!(self.replica_sets, 2 | 3),
                ),
                check(
                    "its client is registered, and the audience scope attached",
                    is_true(registration::CLIENT_REGISTERED) && is_true(registration::AUDIENCE_SCOPE_READY),
                ),
                check("its experiment is configured", is_true(MLFLOW_CONFIGURED)),
            ]);
            return checks;
        }
        checks.push(check("enrolling took exactly one rollout", self.replica_sets == 2));
        if scene != Scene::Foreign {
            let told = state(condition::IDENTITY_READY) == Some(("False", reason::NO_IDENTITY_PROVIDER));
            checks.push(check("it says that this cluster has no identity provider, and works without", told));
        }
        checks
    }

    /// Labels and annotations of the workload's pod template.
    pub(crate) fn template_keys(&self) -> BTreeMap<String, String> {
        let template = self
            .deployment
            .as_ref()
            .and_then(|deployment| deployment.spec.as_ref())
            .map(|spec| &spec.template);
        let metadata = template.and_then(|template| template.metadata.as_ref());
        let maps = metadata.map(|metadata| [&metadata.labels, &metadata.annotations]);
        let keys = maps.into_iter().flatten().flatten().flatten();
        keys.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Containers that the user wrote.
    pub(crate) fn written_containers(&self) -> Vec<String> {
        let spec =
            self.deployment.as_ref().and_then(|deployment| deployment.spec.as_ref()?.template.spec.as_ref());
        spec.map(|spec| spec.containers.iter().map(|container| container.name.clone()).collect())
            .unwrap_or_default()
    }

    /// The AgentRuntime's conditions.
    pub(crate) fn conditions(&self) -> &[Condition] {
        let status = self.runtime.as_ref().and_then(|runtime| runtime.status.as_ref());
        status.map(|status| status.conditions.as_slice()).unwrap_or_default()
    }
}

/// The two shapes of the policy (card §15.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Verified peers may come in, everything may go out.
    Open,
    /// Only the suite's own namespace may come in, only the API server may be reached.
    Isolated,
}

/// The Pod runs and its sidecar is ready.
fn protected(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let lists = [&status.container_statuses, &status.init_container_statuses];
    let ready =
        lists.into_iter().flatten().flatten().any(|container| container.name == SIDECAR && container.ready);
    status.phase.as_deref() == Some("Running") && ready
}

fn enrolled(pod: &Pod) -> bool {
    let is = |key: &str, value: &str| pod.labels().get(key).is_some_and(|found| found == value);
    is(label::ENROLLED, "true") && is(label::TYPE, "agent")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Snapshot {
        let condition = |name: &str, status: &str, reason: &str| json!({"type": name, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let runtime = serde_json::from_value(json!({
            "apiVersion": "agent.kagenti.dev/v1alpha1",
            "kind": "AgentRuntime",
            "metadata": {"name": "weather-agent-runtime"},
            "spec": {"type": "agent", "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"}},
            "status": {"phase": "Active", "conditions": [
                condition("Ready", "True", "Configured"),
                condition("PodsConfigured", "True", "RolloutComplete"),
                condition("IdentityReady", "False", "NoIdentityProvider"),
            ]},
        }))
        .expect("an AgentRuntime");
        let pod = serde_json::from_value(json!({
            "metadata": {"labels": {"agent.kagenti.dev/enrolled": "true", "kagenti.io/type": "agent"}},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "authbridge-proxy", "ready": true, "restartCount": 0, "image": "", "imageID": ""},
            ]},
        }))
        .expect("a Pod");
        Snapshot {
            runtime: Some(runtime),
            deployment: None,
            pods: vec![pod],
            replica_sets: 2,
            card: Some(card(&[("Synced", "True", "SyncSucceeded")], agent::NAME)),
            policy: None,
        }
    }

    fn card(conditions: &[(&str, &str, &str)], name: &str) -> AgentCard {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(name, status, reason)| json!({"type": name, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}))
            .collect();
        serde_json::from_value(json!({
            "apiVersion": "agent.kagenti.dev/v1alpha1",
            "kind": "AgentCard",
            "metadata": {"name": "weather-agent-deployment-card"},
            "spec": {},
            "status": {"card": {"name": name}, "conditions": conditions},
        }))
        .expect("an AgentCard")
    }

    fn policy(egress: &serde_json::Value) -> NetworkPolicy {
        serde_json::from_value(json!({"metadata": {}, "spec": {"podSelector": {}, "egress": egress}}))
            .expect("a NetworkPolicy")
    }

    fn failing(snapshot: &Snapshot) -> usize {
        failing_in(snapshot, Scene::Bare)
    }

    fn failing_in(snapshot: &Snapshot, scene: Scene) -> usize {
        snapshot.checks(scene).iter().filter(|check| !check.holds).count()
    }

    #[test]
    fn the_verdict_and_the_policy_are_both_checked() {
        let isolated =
            policy(&json!([{"to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}], "ports": [{"port": 6443}]}]));
        let verified = [("Verified", "True", "SignatureVerified"), ("Bound", "True", "Bound")];
        let signed = Snapshot {
            card: Some(card(&verified, agent::NAME)),
            policy: Some(policy(&json!([{}]))),
            ..good()
        };
        assert_eq!(failing_in(&signed, Scene::Signed), 0);
        assert_eq!(failing_in(&signed, Scene::Tampered), 2);
        let refused = Snapshot {
            card: Some(card(&[("Verified", "False", "SignatureInvalid")], agent::NAME)),
            policy: Some(isolated),
            ..good()
        };
        assert_eq!(failing_in(&refused, Scene::Tampered), 0);
        assert_eq!(failing_in(&refused, Scene::Unsigned), 0);
        assert_eq!(failing_in(&refused, Scene::Signed), 3);
        assert_eq!(failing_in(&Snapshot { policy: None, ..signed }, Scene::Signed), 1);
    }

    #[test]
    fn a_good_end_satisfies_all() {
        assert_eq!(failing(&good()), 0);
        assert_eq!(good().checks(Scene::Foreign).len() + 2, good().checks(Scene::Bare).len());
    }

    #[test]
    fn each_statement_can_fail() {
        assert_eq!(failing(&Snapshot::default()), 7);
        assert_eq!(failing(&Snapshot { card: Some(card(&[], agent::NAME)), ..good() }), 1);
        assert_eq!(failing(&Snapshot { replica_sets: 3, ..good() }), 1);
        let mut unprotected = good();
        unprotected.pods[0].status = None;
        assert_eq!(failing(&unprotected), 1);
        let mut two = good();
        two.pods.push(two.pods[0].clone());
        assert_eq!(failing(&two), 1);
        let mut pending = good();
        pending.runtime.as_mut().and_then(|runtime| runtime.status.as_mut()).expect("a status").phase = None;
        assert_eq!(failing(&pending), 1);
    }
}
