//! `helm test` of a release that is not well: it fails, and what it prints says why (packaging §15).

use anyhow::{Context as _, Result, ensure};
use e2e::kinds::{self, Kind};
use e2e::{Json as _, Ns, objects, secs};
use serde_json::{Value, json};

use crate::chart::{Helm, NAMESPACE, RELEASE};
use crate::failover::signal;
use crate::installed::Turn;
use crate::release;

const CARD_CTL: &str = "kagenti-card-ctl";
/// The role of netpol-ctl in the cluster.
const NETPOL_ROLE: &str = "kagenti-netpol-ctl-kagenti-operator.kagenti-system";
/// Name of the webhook's Service.
const SERVICE: &str = "kagenti-operator-kagenti-operator-chart-webhook-service";

/// What `helm test --logs` printed, on both streams; of one component, or of all of them.
async fn helm_test(helm: &Helm, component: Option<&str>) -> Result<(bool, String)> {
    let namespace = format!("--namespace={NAMESPACE}");
    let filter = component.map(|name| format!("--filter=name=kagenti-{name}-test"));
    let args = ["test", RELEASE, &namespace, "--timeout=2m", "--logs"];
    let output = helm.attempt(args.into_iter().chain(filter.as_deref())).await?;
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Ok((output.status.success(), said.concat()))
}

/// The test of one component fails; what its check says.
async fn failure(helm: &Helm, component: &str, check: &str) -> Result<String> {
    let (passed, said) = helm_test(helm, Some(component)).await?;
    ensure!(!passed, "{said}");
    line(&said, "FAILED", check).map(str::to_owned)
}

/// The line of a table that begins so.
fn line<'a>(said: &'a str, mark: &str, check: &str) -> Result<&'a str> {
    said.lines()
        .find(|line| line.strip_prefix(mark).is_some_and(|rest| rest.trim_start().starts_with(check)))
        .with_context(|| format!("no line `{mark} {check}` in:\n{said}"))
}

async fn scale(turn: &Turn, deployment: &str, replicas: i64) -> Result<()> {
    turn.operator.set_spec(kinds::DEPLOYMENT, deployment, json!({"replicas": replicas})).await.map(drop)
}

/// A role and who has it, in the namespace of the release or in the whole cluster.
fn grant(name: &str, kinds: [Kind; 2], right: &Value, holder: &Value) -> [Value; 2] {
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kinds[0].kind, "name": name});
    [
        objects::named(kinds[0], name).with(json!({"rules": [right]})).build(),
        objects::named(kinds[1], name).with(json!({"roleRef": role, "subjects": [holder]})).build(),
    ]
}

/// Packaging 22: a component that was scaled to 0, one of two replicas that does not answer, a right too few, a right too many
/// and a webhook without endpoints are each named by the check that fails; before and afterwards every table says `ok`.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn packaging_22_helm_test_says_what_is_wrong() -> Result<()> {
    let turn = Turn::take().await?;
    let helm = Helm::new(&turn.node().built().helm, turn.cluster()).await?;
    // What a platform gives everybody is no right of ours.
    let cluster = Ns::cluster(turn.cluster().client().await?);
    let everybody =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:authenticated"});
    let nodes = json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]});
    for object in grant("everybody", [kinds::CLUSTER_ROLE, kinds::CLUSTER_ROLE_BINDING], &nodes, &everybody) {
        cluster.create(object).await?;
    }
    let outcome = well_then_sick(&turn, &helm).await;
    cluster.delete(kinds::CLUSTER_ROLE_BINDING, "everybody").await?;
    cluster.delete(kinds::CLUSTER_ROLE, "everybody").await?;
    outcome
}

async fn well_then_sick(turn: &Turn, helm: &Helm) -> Result<()> {
    let (passed, said) = helm_test(helm, None).await?;
    ensure!(passed && !said.contains("FAILED"), "{said}");
    for component in release::COMPONENTS {
        ensure!(said.contains(&format!("POD LOGS: kagenti-{component}-test")), "{component}: {said}");
    }
    for (check, times) in
        [(" rights as expected\n", 6), (" 2 of 2 are ready\n", 2), (" 1 of 1 are ready\n", 4)]
    {
        ensure!(said.matches(check).count() == times, "{check:?} is not there {times} times: {said}");
    }
    line(&said, "ok", "webhook")?;
    let asked = line(&said, "ok", "invalid AgentRuntime")?;
    ensure!(asked.ends_with("refused by the webhook"), "{asked}");

    nobody_is_there(turn, helm).await?;
    one_does_not_answer(turn, helm).await?;
    rights_differ(turn, helm).await?;
    nobody_answers(turn, helm).await?;
    release::until_ready(&turn.operator, secs(120)).await?;
    release::answers(&turn.operator).await?;
    let (passed, said) = helm_test(helm, None).await?;
    ensure!(passed && !said.contains("FAILED"), "{said}");
    Ok(())
}

async fn nobody_is_there(turn: &Turn, helm: &Helm) -> Result<()> {
    scale(turn, CARD_CTL, 0).await?;
    let none = |pods: &[Value]| pods.is_empty();
    let of = "control-plane=controller-manager,app.kubernetes.io/component=card-ctl";
    turn.operator.until_list(secs(60), kinds::POD, of, "no Pod of card-ctl", none).await?;
    let outcome = helm_test(helm, Some("card-ctl")).await;
    // Also for the tests after this one.
    scale(turn, CARD_CTL, 1).await?;
    let (passed, said) = outcome?;
    ensure!(!passed, "{said}");
    let why = line(&said, "FAILED", "lease")?;
    ensure!(why.contains("card-ctl.kagenti.dev") && why.contains("scaled to 0"), "{why}");
    let why = line(&said, "FAILED", "replicas")?;
    ensure!(why.contains("0 of 1 are there: kagenti-card-ctl-metrics"), "{why}");
    Ok(())
}

/// One of two replicas stands still, and it is not the one that holds the Lease.
async fn one_does_not_answer(turn: &Turn, helm: &Helm) -> Result<()> {
    let lease = turn.operator.get(kinds::LEASE, "runtime-ctl.kagenti.dev").await?;
    let pods = release::pods(&turn.operator, "runtime-ctl").await?;
    let other =
        pods.iter().find(|pod| pod.name() != lease.text("/spec/holderIdentity")).context("a follower")?;
    ensure!(signal(other, "-STOP")? > 0, "no process in {}", other.name());
    let outcome = failure(helm, "runtime-ctl", "replicas").await;
    signal(other, "-CONT")?;
    let why = outcome?;
    let address = other.text("/status/podIP");
    ensure!(why.contains(&format!("1 of 2 are ready: {address}:8081: no answer within")), "{why}");
    Ok(())
}

/// A rule of the component's role is gone, and somebody else gave it a right.
async fn rights_differ(turn: &Turn, helm: &Helm) -> Result<()> {
    let cluster = Ns::cluster(turn.cluster().client().await?);
    let role = cluster.get(kinds::CLUSTER_ROLE, NETPOL_ROLE).await?;
    let rules = role.items("/rules");
    let is_policies = |rule: &&Value| rule["resources"] == json!(["networkpolicies"]);
    let less: Vec<&Value> = rules.iter().filter(|rule| !is_policies(rule)).collect();
    ensure!(less.len() + 1 == rules.len(), "{role}");
    cluster.patch(kinds::CLUSTER_ROLE, NETPOL_ROLE, json!({"rules": less})).await?;
    let account = json!({"kind": "ServiceAccount", "name": "kagenti-netpol-ctl", "namespace": NAMESPACE});
    let pods =
        json!({"apiGroups": [""], "resources": ["pods"], "resourceNames": ["web"], "verbs": ["delete"]});
    for object in grant("foreign", [kinds::ROLE, kinds::ROLE_BINDING], &pods, &account) {
        turn.operator.create(object).await?;
    }
    let outcome = failure(helm, "netpol-ctl", "rights").await;
    cluster.patch(kinds::CLUSTER_ROLE, NETPOL_ROLE, json!({"rules": rules})).await?;
    turn.operator.delete(kinds::ROLE_BINDING, "foreign").await?;
    turn.operator.delete(kinds::ROLE, "foreign").await?;
    let why = outcome?;
    let missing = "missing in the whole cluster: create, delete, get, list, patch, watch networkpolicies.networking.k8s.io. ";
    let surplus =
        format!("more than the chart gives in namespace {NAMESPACE}: delete pods web. Who gives more: ");
    ensure!(why.contains(missing) && why.contains(&surplus), "{why}");
    Ok(())
}

/// The webhook's Service leads to nobody.
async fn nobody_answers(turn: &Turn, helm: &Helm) -> Result<()> {
    let service = turn.operator.get(kinds::SERVICE, SERVICE).await?;
    let selector = service.pointer("/spec/selector").context("a selector")?;
    let lost = json!({"selector": {"app.kubernetes.io/component": "nobody"}});
    turn.operator.set_spec(kinds::SERVICE, SERVICE, lost).await?;
    let slices = format!("kubernetes.io/service-name={SERVICE}");
    let empty = |slices: &[Value]| slices.iter().all(|slice| slice.items("/endpoints").is_empty());
    let outcome = async {
        turn.operator.until_list(secs(30), kinds::ENDPOINT_SLICE, &slices, "no endpoints", empty).await?;
        failure(helm, "authbridge-webhook", "webhook").await
    };
    let outcome = outcome.await;
    turn.operator.set_spec(kinds::SERVICE, SERVICE, json!({"selector": selector})).await?;
    let why = outcome?;
    ensure!(why.contains(SERVICE), "{why}");
    Ok(())
}
