//! The cluster itself, on the real programs: it works, it can be broken on purpose, and it leaves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, ListParams};
use local_cluster::{Cluster, ClusterOptions, Mark, ProcessSpec, wait_for};

const LIMIT: Duration = Duration::from_secs(30);

const WORKLOADS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      initContainers: [{name: sidecar, image: "example.com/sidecar:1", restartPolicy: Always}]
      containers: [{name: web, image: "example.com/web:1"}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  template:
    spec: {restartPolicy: Never, containers: [{name: once, image: "example.com/once:1"}]}
"#;

/// Process ids of the supervisor and everything below it.
fn process_tree(root: i32) -> BTreeSet<i32> {
    let mut tree = BTreeSet::from([root]);
    loop {
        let before = tree.len();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent =
                stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<i32>().ok());
            if parent.is_some_and(|parent| tree.contains(&parent)) {
                tree.insert(pid);
            }
        }
        if tree.len() == before {
            return tree;
        }
    }
}

/// Those of `pids` that still run. A zombie has ended and waits for init.
fn running(pids: &BTreeSet<i32>) -> Vec<i32> {
    pids.iter().copied().filter(|pid| local_cluster::Usage::of(*pid).is_ok()).collect()
}

/// Whether a network namespace is still that of the cluster with this directory: one that came later may have the address
/// range, and so a namespace of the same name.
fn is_left(netns: &Path, dir: &Path) -> bool {
    let name = netns.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let range = name.rsplit('-').next().unwrap_or_default();
    let leased = || {
        let clusters = dir.parent().and_then(|base| std::fs::read_dir(base).ok());
        clusters.into_iter().flatten().flatten().any(|cluster| {
            std::fs::read_to_string(cluster.path().join("pod-range")).is_ok_and(|of| of.trim() == range)
        })
    };
    // The later one may end in between.
    netns.exists() && !leased() && netns.exists()
}

async fn all_gone(pids: &BTreeSet<i32>) -> Result<()> {
    wait_for(LIMIT, "every process to be gone", async || {
        let left = running(pids);
        anyhow::ensure!(left.is_empty(), "still running: {left:?}");
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn workloads_run_and_nothing_is_left() -> Result<()> {
    let started = Instant::now();
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    println!("ready after {:?}", started.elapsed());
    let client = cluster.client().await?;
    let mark = cluster.audit()?.mark()?;
    cluster.apply_yaml(WORKLOADS).await?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    wait_for(LIMIT, "Deployment web to be available", async || {
        let status = deployments.get("web").await?.status.context("a status")?;
        Ok((status.available_replicas == Some(2)).then_some(()))
    })
    .await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let web = pods.list(&ListParams::default().labels("app=web")).await?;
    let range: ipnet::Ipv4Net = cluster.info().pod_range.as_deref().context("a Pod range")?.parse()?;
    for pod in &web {
        let status = pod.status.as_ref().context("a status")?;
        assert_eq!(status.phase.as_deref(), Some("Running"));
        let address: std::net::Ipv4Addr = status.pod_ip.as_deref().context("an address")?.parse()?;
        assert!(range.contains(&address), "{address} is not in {range}");
        let sidecar = status.init_container_statuses.as_deref().unwrap_or_default().first();
        assert!(sidecar.is_some_and(|sidecar| sidecar.ready && sidecar.started == Some(true)));
    }
    if let Some(netns) = &cluster.info().netns {
        // Nothing listens there, but something refuses: the address is reachable.
        assert!(netns.exists());
        let pod =
            web.items.first().and_then(|pod| pod.status.as_ref()?.pod_ip.clone()).context("a Pod address")?;
        let refused = tokio::net::TcpStream::connect((pod.as_str(), 9)).await.expect_err("nobody listens");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{refused}");
        // Anything that listens will do for an agent.
        let args = ["proxy", "--address=0.0.0.0", "--port=8000"].map(str::to_owned).to_vec();
        let spec = ProcessSpec {
            name: "agent".to_owned(),
            program: cluster.kubectl_path().to_owned(),
            args,
            env: BTreeMap::from([("KUBECONFIG".to_owned(), cluster.kubeconfig().display().to_string())]),
            log: cluster.log_path("agent"),
            netns: Some(netns.clone()),
        };
        cluster.start_process(spec).await?;
        wait_for(LIMIT, "the process to answer at the Pod's address", async || {
            Ok(Some(tokio::net::TcpStream::connect((pod.as_str(), 8000)).await?))
        })
        .await?;
    }
    let jobs: Api<Job> = Api::namespaced(client.clone(), "default");
    wait_for(LIMIT, "Job once to complete", async || {
        Ok((jobs.get("once").await?.status.context("a status")?.succeeded == Some(1)).then_some(()))
    })
    .await?;
    deployments.delete("web", &DeleteParams::default()).await?;
    wait_for(LIMIT, "the Pods to be deleted", async || {
        Ok(pods.list(&ListParams::default().labels("app=web")).await?.items.is_empty().then_some(()))
    })
    .await?;

    let writes = cluster.audit()?.since(mark, |request| {
        request.user == "local-cluster-admin" && request.resource == "deployments" && request.is_write()
    })?;
    assert_eq!(writes.iter().map(|request| request.verb.as_str()).collect::<Vec<_>>(), ["patch", "delete"]);
    assert!(cluster.metrics().await?.contains("apiserver_request_total"));
    assert!(cluster.kubectl(["get", "nodes", "-o", "name"]).await?.contains("node/node-2"));
    let refused = cluster.kubectl(["get", "nosuchthing"]).await.expect_err("no such kind");
    assert!(refused.to_string().contains("nosuchthing"), "{refused}");

    let tree = process_tree(cluster.info().supervisor);
    assert!(tree.len() >= 6, "{tree:?}");
    let info = cluster.info().clone();
    cluster.stop().await?;
    all_gone(&tree).await?;
    assert!(!info.dir.exists(), "{} is left", info.dir.display());
    assert!(info.netns.is_none_or(|netns| !is_left(&netns, &info.dir)));
    assert!(cluster.client().await.is_err());
    Ok(())
}

#[tokio::test]
async fn nothing_is_left_when_the_supervisor_is_killed() -> Result<()> {
    let options = ClusterOptions { nodes: 1, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).await?;
    let tree = process_tree(cluster.info().supervisor);
    assert!(tree.len() >= 6, "{tree:?}");
    let supervisor = nix::unistd::Pid::from_raw(cluster.info().supervisor);
    nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL)?;
    all_gone(&tree).await?;
    let error = cluster.api_server().stop().await.expect_err("nobody is there");
    assert!(error.to_string().contains("supervisor is gone"), "{error:#}");
    // The next cluster removes the directory that this one could not.
    let info = cluster.info().clone();
    let next =
        Cluster::start(ClusterOptions { nodes: 0, controller_manager: false, ..ClusterOptions::default() });
    next.await?.stop().await?;
    assert!(!info.dir.exists(), "{} is left", info.dir.display());
    assert!(info.netns.is_none_or(|netns| !is_left(&netns, &info.dir)));
    Ok(())
}

#[tokio::test]
async fn two_clusters_and_an_api_server_that_goes_and_comes_back() -> Result<()> {
    let bare =
        ClusterOptions { nodes: 0, controller_manager: false, scheduler: false, ..ClusterOptions::default() };
    let (one, two) = (Cluster::start(bare.clone()).await?, Cluster::start(bare).await?);
    assert_ne!(one.info().server, two.info().server);
    assert_ne!(one.info().pod_range, two.info().pod_range);
    one.apply_yaml("{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {a: b}}").await?;
    let api: Api<ConfigMap> = Api::namespaced(one.client().await?, "default");
    let version = api.get("kept").await?.metadata.resource_version.context("a version")?;

    one.api_server().stop().await?;
    assert!(api.get("kept").await.is_err());
    assert!(
        Api::<ConfigMap>::namespaced(two.client().await?, "default")
            .list(&ListParams::default())
            .await
            .is_ok()
    );
    one.api_server().start_with(&["--max-requests-inflight=100".to_owned()]).await?;
    assert_eq!(api.get("kept").await?.data.context("data")?.get("a").map(String::as_str), Some("b"));

    one.apply_yaml("{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {a: c}}").await?;
    one.forget_history().await?;
    let watch = api.watch(&kube::api::WatchParams::default(), &version).await;
    let gone = match watch {
        Err(error) => format!("{error:?}"),
        Ok(stream) => {
            let mut stream = std::pin::pin!(stream);
            format!("{:?}", futures::StreamExt::next(&mut stream).await)
        }
    };
    assert!(gone.contains("410"), "{gone}");
    assert!(one.audit()?.since(Mark::default(), |request| request.name == "kept")?.len() >= 3);
    Ok(())
}
