//! A user whose only right is `admin` in one namespace installs components there (packaging §7).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use e2e::{Json as _, Ns, kinds, objects, secs};
use local_cluster::{ApiRequest, Mark};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::chart::{Helm, NAMESPACE};
use crate::node::RealNode;
use crate::release::{
    COMPONENTS, component_chart, enrol, helm_run, lives, only, pod, pods, restarts, until_ready,
    until_readyz, wide_objects,
};

/// Where the tenant is admin.
const TEAM: &str = "team1";
/// The restart of the API server below must not cost anybody his Lease: then the process ends, as it should.
const PATIENT: &str = "--set=leaderElection.leaseDuration=120s,leaderElection.renewDeadline=110s";

/// The release of a component, and what the tenant sets.
fn settings(component: &str) -> (&'static str, &'static [&'static str]) {
    match component {
        // As in the specification, word for word.
        "netpol-ctl" => ("netpol", &[]),
        "runtime-ctl" => ("runtime", &[]),
        "card-ctl" => ("card", &[]),
        "mlflow-ctl" => ("mlflow", &[]),
        "client-registration-ctl" => {
            ("registration", &["--set=keycloak.adminSecretNamespace=team1,watchSecrets=false"])
        }
        _ => ("webhook", &["--set=tls.mode=files,tls.existingSecret=webhook-cert"]),
    }
}

/// A kubeconfig with a token of a ServiceAccount that has one RoleBinding.
async fn kubeconfig(node: &RealNode, dir: &TempDir) -> Result<std::path::PathBuf> {
    let cluster = node.cluster();
    cluster.kubectl(["--namespace=team1", "create", "serviceaccount", "tenant"]).await?;
    let subject = "--serviceaccount=team1:tenant";
    let bind = ["--namespace=team1", "create", "rolebinding", "tenant", "--clusterrole=admin", subject];
    cluster.kubectl(bind).await?;
    let token = cluster.kubectl(["--namespace=team1", "create", "token", "tenant"]).await?;
    let admin = cluster.kubectl(["config", "view", "--raw", "--output=json"]).await?;
    let mut config: Value = serde_json::from_str(&admin).context("the admin's kubeconfig")?;
    let user = config.pointer_mut("/users/0/user").context("a user in the kubeconfig")?;
    *user = json!({"token": token.trim()});
    let path = dir.path().join("tenant.kubeconfig");
    std::fs::write(&path, config.to_string()).context("writing the tenant's kubeconfig")?;
    Ok(path)
}

/// `tls.mode=files` takes a certificate that comes from elsewhere.
async fn certificate(ns: &Ns) -> Result<()> {
    let names = ["webhook-kagenti-operator-chart-webhook-service.team1.svc".to_owned()];
    let pair = rcgen::generate_simple_self_signed(names).context("a certificate")?;
    let data = json!({"tls.crt": pair.cert.pem(), "tls.key": pair.signing_key.serialize_pem()});
    let secret = objects::named(kinds::SECRET, "webhook-cert")
        .with(json!({"type": "kubernetes.io/tls", "stringData": data}));
    ns.create(secret).await.map(drop)
}

/// Packaging 7: every component, installed by the tenant, becomes ready and works, and asks for nothing outside; a Role
/// that is taken away is named, and its return is noticed, by the same process.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn packaging_07_tenant() -> Result<()> {
    let node = RealNode::own().await?;
    let helm = Helm::new(&node.built().helm, node.cluster()).await?;
    // The administrator's part: definitions, and what `admin` of a namespace may do with their objects.
    let (suite, off) = (helm.chart().display().to_string(), only(&[]));
    let namespace = format!("--namespace={NAMESPACE}");
    let args = ["install", "definitions", &suite, &namespace, "--create-namespace", &off, "--wait"];
    helm_run(&helm, node.cluster(), &args).await?;
    let team = node.namespace(TEAM, json!({})).await?;
    let other = node.namespace("team2", json!({})).await?;
    let dir = tempfile::tempdir().context("a directory")?;
    let tenant = kubeconfig(&node, &dir).await?;
    certificate(&team).await?;

    let all = Ns::cluster(node.cluster().client().await?);
    let before = wide_objects(&all).await?;
    let mark = node.cluster().audit()?.mark()?;
    install(&helm, &node, &tenant).await?;
    until_ready(&team, secs(120)).await?;
    assert_eq!(wide_objects(&all).await?, before, "objects of the cluster");

    works(&team, &other).await?;
    roles_come_and_go(&node, &team).await?;
    assert_nothing_outside(&node, mark)?;
    tests_pass(&helm, &node, &tenant).await?;
    // The tenant can also take it all away again; netpol-ctl's policies go with it.
    let config = format!("--kubeconfig={}", tenant.display());
    let uninstall = ["uninstall", "netpol", "--namespace=team1", &config, "--wait", "--timeout=2m"];
    helm_run(&helm, node.cluster(), &uninstall).await?;
    let left = team.list(kinds::NETWORK_POLICY, "").await?;
    assert!(left.is_empty(), "{left:?}");
    node.cluster().stop().await
}

async fn install(helm: &Helm, node: &RealNode, tenant: &Path) -> Result<()> {
    let config = format!("--kubeconfig={}", tenant.display());
    for component in COMPONENTS {
        let chart = component_chart(helm, component).await?.display().to_string();
        let (release, more) = settings(component);
        let mut args = vec!["install", release, &chart, "--namespace=team1", &config, PATIENT];
        args.push("--set=watchNamespaces={team1}");
        args.extend(more);
        let notes = helm_run(helm, node.cluster(), &args)
            .await
            .with_context(|| format!("{component}, installed by the tenant"))?;
        ensure!(component != "netpol-ctl" || notes.contains("apiServerCidrs"), "{notes}");
    }
    // He cannot do more than that.
    let chart = component_chart(helm, "card-ctl").await?.display().to_string();
    let wide = ["install", "wide", &chart, "--namespace=team1", &config, "--set=fullnameOverride=wide"];
    let refused = helm.run(wide).await.err().context("a tenant installed for the whole cluster")?;
    ensure!(format!("{refused:#}").contains("clusterroles"), "{refused:#}");
    Ok(())
}

/// `helm test` of each release by the tenant: its rights are those of its Roles, without any of the cluster.
async fn tests_pass(helm: &Helm, node: &RealNode, tenant: &Path) -> Result<()> {
    let config = format!("--kubeconfig={}", tenant.display());
    for component in COMPONENTS {
        let (release, _) = settings(component);
        let args = ["test", release, "--namespace=team1", &config, "--timeout=2m", "--logs"];
        let said =
            helm_run(helm, node.cluster(), &args).await.with_context(|| format!("testing {component}"))?;
        for check in ["rights as expected", "are ready"] {
            ensure!(said.contains(check), "{component}: no {check}: {said}");
        }
    }
    Ok(())
}

/// The components at work in one namespace, and in no other.
async fn works(team: &Ns, other: &Ns) -> Result<()> {
    for ns in [team, other] {
        enrol(ns, "weather").await?;
    }
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "weather"});
    let card = objects::named(kinds::AGENT_CARD, "by-hand").spec(json!({"targetRef": target}));
    other.create(card).await?;
    team.until_ready(secs(60), "weather").await?;
    let card = "weather-deployment-card";
    team.until(secs(60), kinds::AGENT_CARD, card, "card-ctl's card", |_| true).await?;
    let policy = "weather-signature-policy";
    team.until(secs(60), kinds::NETWORK_POLICY, policy, "netpol-ctl's policy", |_| true).await?;

    let runtime = other.stays(secs(5), kinds::AGENT_RUNTIME, "weather").await?;
    assert!(runtime.texts("/metadata/finalizers").is_empty(), "{}", runtime.readable());
    let cards = other.list(kinds::AGENT_CARD, "").await?;
    assert!(cards.len() == 1 && cards[0].get("status").is_none(), "{cards:?}");
    assert!(other.list(kinds::NETWORK_POLICY, "").await?.is_empty(), "an effect in another namespace");
    Ok(())
}

/// Roles that are taken away from processes at work, and one that is missing when a process starts.
async fn roles_come_and_go(node: &RealNode, team: &Ns) -> Result<()> {
    let mut bindings = Vec::new();
    for component in COMPONENTS {
        let name = format!("kagenti-{component}");
        bindings.push(team.get(kinds::ROLE_BINDING, &name).await?);
        team.delete(kinds::ROLE_BINDING, &name).await?;
    }
    let old = pod(team, "netpol-ctl").await?;
    team.delete(kinds::POD, old.name()).await?;
    team.gone(secs(60), kinds::POD, old.name()).await?;
    // Open watches outlive a right; a restart of the API server ends them.
    node.cluster().api_server().stop().await?;
    node.cluster().api_server().start().await?;
    for component in COMPONENTS {
        until_readyz(team, component, secs(90), 503, &["not allowed to", TEAM]).await?;
    }
    let without = pods(team, "").await?;
    asked_again(node).await?;
    said_once(node, &pod(team, "netpol-ctl").await?, "agentcards").await?;
    for binding in &bindings {
        team.create(again(binding)).await?;
    }
    until_ready(team, secs(120)).await?;
    let with = pods(team, "").await?;
    assert_eq!(lives(&with), lives(&without), "the same Pods");
    assert_eq!(with.iter().map(restarts).sum::<i64>(), 0, "healed without restart");
    // They work, too.
    enrol(team, "late").await?;
    team.until_ready(secs(60), "late").await.map(drop)
}

/// The same object, to be created again.
fn again(binding: &Value) -> Value {
    let metadata = json!({"name": binding.name(), "labels": binding["metadata"]["labels"],
        "annotations": binding["metadata"]["annotations"]});
    json!({"apiVersion": binding["apiVersion"], "kind": binding["kind"], "metadata": metadata,
        "roleRef": binding["roleRef"], "subjects": binding["subjects"]})
}

/// The refused list is tried again.
async fn asked_again(node: &RealNode) -> Result<()> {
    let audit = node.cluster().audit()?;
    let mark = audit.mark()?;
    local_cluster::wait_for(secs(60), "a refused list to be tried again", async || {
        let refused = audit.since(mark, |request| {
            request.short_user() == "kagenti-netpol-ctl"
                && request.resource == "agentcards"
                && request.code == 403
        })?;
        Ok((!refused.is_empty()).then_some(()))
    })
    .await
}

/// Logged at most once a minute; the restart of the API server begins anew.
async fn said_once(node: &RealNode, pod: &Value, resource: &str) -> Result<()> {
    let log = node.cluster().kubectl(["logs", "--namespace=team1", pod.name()]).await?;
    let said = log.lines().filter(|line| line.contains(&format!("not allowed to list {resource}"))).count();
    let created = pod.text("/metadata/creationTimestamp");
    let created: jiff::Timestamp = created.parse().with_context(|| format!("the time {created:?}"))?;
    let minutes = (jiff::Timestamp::now().as_second() - created.as_second()) / 60;
    let most = usize::try_from(minutes).context("a Pod from the future")? + 2;
    ensure!((1..=most).contains(&said), "said {said} times in {minutes} minutes:\n{log}");
    Ok(())
}

/// No process of the release asked for anything outside the namespace, but for what a cluster may have and a Role cannot
/// show.
fn assert_nothing_outside(node: &RealNode, mark: Mark) -> Result<()> {
    let ours = |request: &ApiRequest| {
        request.user.starts_with("system:serviceaccount:team1:") && request.short_user() != "tenant"
    };
    let mut outside = BTreeMap::new();
    let mut inside: BTreeMap<String, usize> = BTreeMap::new();
    for request in node.cluster().audit()?.since(mark, ours)? {
        let user = request.short_user().to_owned();
        if request.uri.contains("/namespaces/team1/") {
            *inside.entry(user).or_default() += 1;
        } else if !is_discovery(&request) && !is_its_namespace(&request) && !is_feature(&request) {
            *outside.entry((user, request.verb, request.uri, request.code)).or_insert(0) += 1;
        }
    }
    assert!(outside.is_empty(), "outside of team1: {outside:#?}");
    for component in COMPONENTS {
        let user = match component {
            "client-registration-ctl" => "controller-manager".to_owned(),
            name => format!("kagenti-{name}"),
        };
        assert!(inside.get(&user).is_some_and(|count| *count > 3), "{user} asked nothing: {inside:?}");
    }
    Ok(())
}

/// What there is to ask for, not any object.
fn is_discovery(request: &ApiRequest) -> bool {
    request.resource.is_empty() && request.verb == "get"
}

/// A Role lets its holder read the namespace itself; netpol-ctl has no reason to.
fn is_its_namespace(request: &ApiRequest) -> bool {
    let path = request.uri.split('?').next().unwrap_or_default();
    request.verb == "get"
        && path == "/api/v1/namespaces/team1"
        && request.short_user() != "kagenti-netpol-ctl"
}

/// SPIRE, OpenShift, MLflow: asked for, refused, and taken for absent (runtime §19.4); for netpol-ctl they mean nothing.
fn is_feature(request: &ApiRequest) -> bool {
    let wide = ["csidrivers", "clusterroles", "mlflows", "zerotrustworkloadidentitymanagers"];
    let bundle = request.resource == "configmaps" && request.name == "spire-bundle";
    request.code == 403
        && request.short_user() != "kagenti-netpol-ctl"
        && (bundle || request.namespace.is_empty() && wide.contains(&request.resource.as_str()))
}
