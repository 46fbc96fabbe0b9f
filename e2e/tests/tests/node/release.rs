//! A release as its user sees it: Deployments that are ready, Pods that were left alone or not, what they say.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use e2e::kinds::{self, Kind};
use e2e::{Json as _, Ns, api, secs, wait_for};
use local_cluster::{Cluster, http};
use serde_json::{Value, json};

use crate::chart::Helm;

/// Pods of the suite, whichever release and component they are of.
pub(crate) const SUITE: &str = "control-plane=controller-manager";

/// Every component that has a chart.
pub(crate) const COMPONENTS: [&str; 6] =
    ["runtime-ctl", "card-ctl", "netpol-ctl", "mlflow-ctl", "authbridge-webhook", "client-registration-ctl"];

/// The chart of one component, ready to be installed alone.
pub(crate) async fn component_chart(helm: &Helm, component: &str) -> Result<PathBuf> {
    let chart = helm.chart().with_file_name(component);
    helm.run(["dependency".as_ref(), "build".as_ref(), chart.as_os_str()]).await?;
    Ok(chart)
}

/// `--set` that switches components of the umbrella on or off, all others the other way.
pub(crate) fn only(on: &[&str]) -> String {
    let toggles: Vec<String> =
        COMPONENTS.iter().map(|name| format!("{name}.enabled={}", on.contains(name))).collect();
    format!("--set={}", toggles.join(","))
}

/// Runs Helm, and shows what the cluster looks like when it fails.
pub(crate) async fn helm_run(helm: &Helm, cluster: &Cluster, args: &[&str]) -> Result<String> {
    match helm.run(args.iter().copied()).await {
        Ok(said) => Ok(said),
        Err(error) => {
            let seen = ["get", "pods,jobs,events", "--all-namespaces", "--output=wide"];
            Err(error.context(cluster.kubectl(seen).await.unwrap_or_default()))
        }
    }
}

/// Live Pods of the suite in a namespace, of one component or, with an empty name, of all.
pub(crate) async fn pods(ns: &Ns, component: &str) -> Result<Vec<Value>> {
    let selector = match component {
        "" => SUITE.to_owned(),
        name => format!("{SUITE},app.kubernetes.io/component={name}"),
    };
    let mut pods = ns.list(kinds::POD, &selector).await?;
    pods.retain(|pod| pod.pointer("/metadata/deletionTimestamp").is_none());
    Ok(pods)
}

/// The one Pod of a component.
pub(crate) async fn pod(ns: &Ns, component: &str) -> Result<Value> {
    let mut pods = pods(ns, component).await?;
    match pods.len() {
        1 => pods.pop().context("a Pod"),
        count => bail!("{component} has {count} Pods in {:?}", ns.name()),
    }
}

/// What `/readyz?verbose` of a Pod says.
pub(crate) async fn readyz(pod: &Value) -> Result<(u16, String)> {
    let address = pod.text("/status/podIP");
    let (status, text) = http::get(&format!("http://{address}:8081/readyz?verbose")).await?;
    Ok((status.as_u16(), text))
}

/// Waits until every Pod of a component says this, whether it is ready or not.
pub(crate) async fn until_readyz(
    ns: &Ns,
    component: &str,
    limit: Duration,
    status: u16,
    words: &[&str],
) -> Result<()> {
    wait_for(limit, &format!("/readyz of {component} to say {status} and {words:?}"), async || {
        let pods = pods(ns, component).await?;
        for pod in &pods {
            let (now, text) = readyz(pod).await?;
            if now != status || !words.iter().all(|word| text.contains(word)) {
                bail!("{} says {now}: {text}", pod.name());
            }
        }
        Ok((!pods.is_empty()).then_some(()))
    })
    .await
}

/// Waits until every Deployment of the suite in a namespace runs its template, and nothing else of it does.
pub(crate) async fn until_ready(ns: &Ns, limit: Duration) -> Result<()> {
    let deployments = ns.list(kinds::DEPLOYMENT, SUITE).await?;
    anyhow::ensure!(!deployments.is_empty(), "no Deployment of the suite in {:?}", ns.name());
    for deployment in &deployments {
        ns.rolled_out(limit, kinds::DEPLOYMENT, deployment.name()).await?;
    }
    let wanted: i64 = deployments.iter().filter_map(|found| found.number("/spec/replicas")).sum();
    ns.until_list(limit, kinds::POD, SUITE, "ready Pods only", |pods| {
        i64::try_from(pods.len()) == Ok(wanted)
            && pods.iter().all(|pod| pod.condition("Ready").status == "True")
    })
    .await
    .map(drop)
}

/// Waits until the API server reaches the webhook through its Service. A Pod that is ready is in the Service's endpoints; that the
/// node routes them is a moment later, and until then whatever the webhook is asked about is refused. Without a webhook
/// there is nothing to wait for.
pub(crate) async fn answers(ns: &Ns) -> Result<()> {
    let path = format!("{}?dryRun=All", kinds::AGENT_RUNTIME.path(Some(ns.name())));
    let asked = e2e::objects::agent_runtime("asked", "nobody").build();
    wait_for(secs(30), "the webhook to answer through its Service", async || {
        let reply = api::call(ns.client(), "POST", &path, "application/json", Some(&asked)).await?;
        reply.ok().map(Some)
    })
    .await
    .map(drop)
}

/// Name, uid and restarts of every Pod: equal before and after means that nobody touched them.
pub(crate) fn lives(pods: &[Value]) -> BTreeMap<String, (String, i64)> {
    let life = |pod: &Value| (pod.name().to_owned(), (pod.uid().to_owned(), restarts(pod)));
    pods.iter().map(life).collect()
}

/// How often containers of a Pod were started again.
pub(crate) fn restarts(pod: &Value) -> i64 {
    let of = |status: &Value| status.number("/restartCount").unwrap_or_default();
    pod.items("/status/containerStatuses").iter().map(of).sum()
}

/// Names of the objects of the cluster that a release could fight over.
pub(crate) async fn wide_objects(all: &Ns) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for kind in WIDE {
        let found = all.list(kind, "").await?;
        names.extend(found.iter().map(|object| format!("{} {}", kind.kind, object.name())));
    }
    names.sort_unstable();
    Ok(names)
}

const WIDE: [Kind; 5] = [
    kinds::CLUSTER_ROLE,
    kinds::CLUSTER_ROLE_BINDING,
    kinds::MUTATING_WEBHOOK,
    kinds::VALIDATING_WEBHOOK,
    kinds::CRD,
];

/// An agent as its team deploys it: a Deployment of the small agent, which says that it speaks A2A, and its Service.
pub(crate) async fn deploy(ns: &Ns, name: &str) -> Result<()> {
    ns.create(e2e::objects::deployment(name).label("protocol.kagenti.io/a2a", "")).await?;
    let port = json!([{"name": "http", "port": 8000, "targetPort": 8000}]);
    ns.create(e2e::objects::service(name, name, port)).await.map(drop)
}

/// The same, enrolled.
pub(crate) async fn enrol(ns: &Ns, name: &str) -> Result<()> {
    deploy(ns, name).await?;
    ns.create(e2e::objects::agent_runtime(name, name)).await.map(drop)
}
