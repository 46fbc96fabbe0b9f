//! Admission, tried: two objects that are created on trial (`dryRun`) and never stored.
//!
//! The webhook warns of a target that cannot be enrolled, and adds a sidecar to a Pod of an enrolled workload. What comes back
//! proves that the API server reaches it and trusts it, whatever the configuration looks like.

use api_types::names::{annotation, label};
use serde_json::{Value, json};

use crate::cluster::{Cluster, NoCluster, Reply, Right};
use crate::installation::Found;

use super::finding::Finding;
use super::webhooks::COMPONENT;

const CHECK: &str = "admission";
/// What the webhook says of a kind that cannot be enrolled.
const WARNING: &str = "cannot be enrolled";
/// To look where agents are.
const CHOOSE: &str = "kubectl kagenti check -n <a namespace of agents>";

/// Why nothing is tried in a namespace that nobody chose: the webhook leaves it alone on purpose.
pub(super) fn unsuited(namespace: &str, found: &Found) -> Option<Finding> {
    let webhooks = || found.components.iter().filter(|component| component.name == COMPONENT);
    let why = if namespace.starts_with("kube-") {
        "it is one of Kubernetes"
    } else if webhooks().any(|webhook| webhook.namespace == namespace) {
        "authbridge-webhook itself is there"
    } else if webhooks().next().is_some() && !webhooks().any(|webhook| webhook.covers(namespace)) {
        "no authbridge-webhook looks after it"
    } else {
        return None;
    };
    Some(Finding::warning(
        CHECK,
        format!("nothing is tried in namespace {namespace} of the kubeconfig: {why}; give -n"),
        CHOOSE,
    ))
}

pub(super) async fn check(cluster: &Cluster, namespace: &str) -> Result<Vec<Finding>, NoCluster> {
    let runtime = json!({
        "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentRuntime",
        "metadata": {"generateName": "kagenti-check-"},
        "spec": {"type": "agent", "targetRef": {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "kagenti-check"}},
    });
    let path = format!("/apis/agent.kagenti.dev/v1alpha1/namespaces/{namespace}/agentruntimes");
    let runtime = cluster.try_create(&path, &runtime).await?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "kagenti-check-", "labels": {label::TYPE: "agent", label::ENROLLED: "true"}},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "agent", "image": "kagenti-check",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "1m", "memory": "1Mi"}},
            }],
        },
    });
    let pod = cluster.try_create(&format!("/api/v1/namespaces/{namespace}/pods"), &pod).await?;
    Ok(vec![judge_runtime(namespace, &runtime), judge_pod(namespace, &pod)])
}

/// What the API server says instead of creating something, as a finding.
fn refusal(what: &str, resource: &'static str, namespace: &str, reply: &Reply) -> Finding {
    let message = reply.message();
    if message.contains("failed calling webhook") || message.contains("failed to call webhook") {
        return Finding::failed(
            CHECK,
            format!(
                "{what} in namespace {namespace} is refused, because the API server does not reach the webhook: {message}"
            ),
            "kubectl -n kagenti-system get pods,endpointslices -l app.kubernetes.io/component=authbridge-webhook; when they \
             are ready, let the API server reach port 9443 of those Pods (NetworkPolicies, firewall of a managed control plane)",
        );
    }
    if reply.status == 403 && message.contains("cannot create resource") {
        let needs = format!("needs the right to {}", Right::new("create", resource, Some(namespace)));
        return Finding::unknown(
            CHECK,
            &format!("whether {what} is admitted in namespace {namespace}"),
            &needs,
        );
    }
    if reply.status == 404 {
        return Finding::failed(
            CHECK,
            format!("{what} cannot be tried in namespace {namespace}: {message}"),
            CHOOSE,
        );
    }
    Finding::failed(
        CHECK,
        format!("{what} in namespace {namespace} is refused: {message}"),
        format!(
            "kubectl get namespace {namespace} --show-labels; kubectl -n {namespace} describe resourcequotas,limitranges"
        ),
    )
}

fn judge_runtime(namespace: &str, reply: &Reply) -> Finding {
    if reply.status >= 300 {
        return refusal("an AgentRuntime", "agentruntimes.agent.kagenti.dev", namespace, reply);
    }
    if reply.warnings.iter().any(|warning| warning.contains(WARNING)) {
        return Finding::ok(
            CHECK,
            format!("the webhook is asked about AgentRuntimes in namespace {namespace}, and answers"),
        );
    }
    Finding::failed(
        CHECK,
        format!("an AgentRuntime in namespace {namespace} is admitted without asking the webhook"),
        "with failurePolicy Ignore this is a webhook that does not answer; else the API server is not told of \
         vagentruntime.kb.io: kubectl get validatingwebhookconfigurations -o yaml",
    )
}

fn judge_pod(namespace: &str, reply: &Reply) -> Finding {
    if reply.status >= 300 {
        return refusal("a Pod of an enrolled workload", "pods", namespace, reply);
    }
    let annotations = reply.body.pointer("/metadata/annotations").and_then(Value::as_object);
    if annotations.is_some_and(|annotations| annotations.contains_key(annotation::AUTHBRIDGE_STATUS)) {
        let containers = reply.body.pointer("/spec/containers").and_then(Value::as_array).map_or(0, Vec::len);
        return Finding::ok(
            CHECK,
            format!(
                "a Pod of an enrolled workload in namespace {namespace} gets its sidecars ({containers} containers)"
            ),
        );
    }
    Finding::failed(
        CHECK,
        format!("a Pod of an enrolled workload in namespace {namespace} gets no sidecar"),
        "namespaces of the release and of Kubernetes are excluded on purpose, with namespaceExclusions; else: kubectl get \
         mutatingwebhookconfigurations -o yaml, and the feature gates (kagenti-feature-gates)",
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::finding::Verdict;
    use super::*;
    use crate::installation::Component;
    use crate::installation::tests::deployment;

    /// Where the kubeconfig happens to be says nothing about admission when no agents belong there.
    #[rstest]
    #[case::agents("team1", &["team2", "team1"], None)]
    #[case::everywhere("team1", &[""], None)]
    #[case::nobody_known("team1", &[], None)]
    #[case::kubernetes("kube-system", &[], Some("it is one of Kubernetes"))]
    #[case::own("kagenti-system", &[""], Some("authbridge-webhook itself is there"))]
    #[case::elsewhere("team1", &["team2", "team3"], Some("no authbridge-webhook looks after it"))]
    fn namespaces_without_agents(
        #[case] namespace: &str,
        #[case] scopes: &[&str],
        #[case] why: Option<&str>,
    ) {
        let webhook = |scope: &&str| {
            let args = json!([format!("--watch-namespaces={scope}")]);
            Component::of(&deployment(COMPONENT, "x:0.1.0", &args)).expect("a component")
        };
        let card_ctl =
            Component::of(&deployment("card-ctl", "x:0.1.0", &json!(["--watch-namespaces=team1"])));
        let mut components: Vec<Component> = scopes.iter().map(webhook).collect();
        components.extend(card_ctl);
        let finding = unsuited(namespace, &Found { components, unknown: None });
        assert_eq!(finding.as_ref().map(|finding| finding.result), why.map(|_| Verdict::Warning));
        assert!(
            why.is_none_or(|why| finding.is_some_and(|f| f.message.ends_with(&format!(": {why}; give -n"))))
        );
    }

    fn reply(status: u16, warnings: &[&str], body: Value) -> Reply {
        Reply { status, warnings: warnings.iter().map(|text| (*text).to_owned()).collect(), body }
    }

    fn refused(status: u16, message: &str) -> Reply {
        reply(status, &[], json!({"kind": "Status", "message": message}))
    }

    #[test]
    fn an_answer_of_the_webhook_is_proof() {
        let asked = reply(
            201,
            &[r#"299 - "spec.targetRef: DaemonSet of group \"apps\" cannot be enrolled""#],
            json!({}),
        );
        assert_eq!(judge_runtime("team1", &asked).result, Verdict::Ok);
        let silent = judge_runtime("team1", &reply(201, &[], json!({})));
        assert_eq!(silent.result, Verdict::Failed);
        assert!(silent.message.contains("without asking the webhook"));
        let injected = json!({"metadata": {"annotations": {"kagenti.io/authbridge-status": "{}"}}, "spec": {"containers": [{}, {}]}});
        assert_eq!(judge_pod("team1", &reply(201, &[], injected)).result, Verdict::Ok);
        assert_eq!(judge_pod("team1", &reply(201, &[], json!({}))).result, Verdict::Failed);
    }

    #[rstest]
    #[case::unreachable(
        500,
        "Internal error occurred: failed calling webhook \"x\": no endpoints available",
        Verdict::Failed,
        "does not reach the webhook"
    )]
    #[case::rights(
        403,
        "pods is forbidden: User \"x\" cannot create resource \"pods\" in API group \"\"",
        Verdict::Unknown,
        "needs the right to create pods in namespace team1"
    )]
    #[case::quota(
        403,
        "pods \"x\" is forbidden: exceeded quota",
        Verdict::Failed,
        "is refused: pods \"x\" is forbidden: exceeded quota"
    )]
    #[case::denied(
        400,
        "admission webhook \"enrolled.inject.kagenti.io\" denied the request: mTLS",
        Verdict::Failed,
        "denied the request: mTLS"
    )]
    #[case::no_namespace(
        404,
        "namespaces \"team1\" not found",
        Verdict::Failed,
        "cannot be tried in namespace team1"
    )]
    fn refusals_are_told_apart(
        #[case] status: u16,
        #[case] message: &str,
        #[case] verdict: Verdict,
        #[case] says: &str,
    ) {
        let finding = judge_pod("team1", &refused(status, message));
        assert_eq!(finding.result, verdict);
        assert!(finding.message.contains(says), "{finding:?}");
    }
}
