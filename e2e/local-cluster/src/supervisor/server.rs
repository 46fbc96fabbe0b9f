//! The supervisor process: brings a cluster up, serves requests, takes everything down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc;

use super::children::Children;
use super::protocol::{Act, ClusterInfo, Notice, Order, Outcome, Request, Value};
use crate::access;
use crate::control_plane::ControlPlane;
use crate::network::PodNetwork;
use crate::node;
use crate::wait::log_tail;
use crate::workdir::{self, WorkDir};

/// How long a program may take to end by itself. Short: nothing of this data is kept.
const GRACE: Duration = Duration::from_secs(1);
/// How long the API server may take to get ready on a busy machine.
const API_DEADLINE: Duration = Duration::from_secs(90);
/// How long the first nodes may take after that.
const NODES_DEADLINE: Duration = Duration::from_mins(1);

/// What reaches a supervisor from outside.
#[derive(Debug)]
pub enum Input {
    /// A request of the process that uses the cluster.
    Request(Request),
    /// Standard input closed, or a signal: take everything down.
    End,
}

/// Runs one cluster until `input` says that it is over. `say` gets every notice for the caller.
/// Everything that was started is gone when this returns.
pub async fn serve(
    order: Order,
    mut input: mpsc::Receiver<Input>,
    say: impl Fn(Notice) + Clone + 'static,
) -> Result<()> {
    let mut cluster =
        Supervised { children: Children::default(), plane: None, pids: BTreeMap::new(), dir: None };
    let brought_up = tokio::select! {
        result = cluster.bring_up(&order, &say) => Some(result),
        () = ended(&mut input) => None,
    };
    let result = match brought_up {
        None => Ok(()),
        Some(Err(error)) => {
            say(Notice::Failed { error: format!("{error:#}") });
            Err(error)
        }
        Some(Ok(info)) => {
            say(Notice::Ready(Box::new(info)));
            cluster.answer_requests(&mut input, &say).await;
            Ok(())
        }
    };
    cluster.children.end_all(GRACE).await;
    if let Some((_, workdir)) = &cluster.dir {
        node::take_down(workdir.path());
    }
    drop(cluster);
    result
}

/// Waits for the end; requests before the cluster is ready are not expected and dropped.
async fn ended(input: &mut mpsc::Receiver<Input>) {
    while let Some(Input::Request(_)) = input.recv().await {}
}

struct Supervised {
    children: Children,
    plane: Option<ControlPlane>,
    pids: BTreeMap<String, i32>,
    dir: Option<(PodNetwork, WorkDir)>,
}

impl Supervised {
    async fn bring_up(&mut self, order: &Order, say: &impl Fn(Notice)) -> Result<ClusterInfo> {
        workdir::sweep(|dir| {
            node::take_down(dir);
            crate::network::take_down(dir);
        });
        let workdir = WorkDir::create()?;
        let dir = workdir.path().to_owned();
        let network = PodNetwork::lease(&dir, &order.options)?;
        let mut info = ClusterInfo {
            dir: dir.clone(),
            supervisor: i32::try_from(std::process::id()).unwrap_or_default(),
            pod_range: Some(network.range().to_string()),
            netns: network.netns().map(Path::to_owned),
            ..ClusterInfo::default()
        };
        if let Some(kubeconfig) = &order.options.kubeconfig {
            std::fs::create_dir_all(dir.join("logs")).context("creating the log directory")?;
            self.dir = Some((network, workdir));
            info.kubeconfig.clone_from(kubeconfig);
            info.server = access::config(kubeconfig).await?.cluster_url.to_string();
            return Ok(info);
        }
        let progress = |text: &str| say(Notice::Progress { text: text.to_owned() });
        let plane = ControlPlane::prepare(&dir, &order.options, &order.programs, &network)?;
        let dns = node::files::dns_address(&network);
        self.dir = Some((network, workdir));
        let second_wave = plane.second_wave();
        info.kubeconfig.clone_from(&plane.kubeconfig);
        info.server.clone_from(&plane.server);
        info.audit_log = Some(plane.audit_log.clone());
        info.etcd = Some(plane.etcd.clone());
        self.plane = Some(plane);

        progress("starting etcd and kube-apiserver");
        for name in ["etcd", "kube-apiserver"] {
            self.start(name, &[])?;
        }
        let client = access::client(&info.kubeconfig).await?;
        self.until(API_DEADLINE, "the API server to get ready", async || {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok(client.request_text(request).await.map(drop)?)
        })
        .await?;
        progress("starting controllers, scheduler and nodes");
        for name in second_wave {
            self.start(name, &[])?;
        }
        add_nodes(&client, order.options.nodes).await?;
        let controllers = order.options.controller_manager;
        let nodes = order.options.nodes + u16::from(order.options.real_node);
        self.until(NODES_DEADLINE, "the nodes to get ready", async || {
            nodes_ready(&client, nodes, controllers).await
        })
        .await?;
        if order.options.real_node {
            progress("starting CoreDNS on the node");
            let base = node::images::pack_base(&dir, order)?;
            node::images::import(&dir, &base).await?;
            node::addons::install(&client, dns).await?;
            self.until(NODES_DEADLINE, "CoreDNS to get ready", async || node::addons::ready(&client).await)
                .await?;
            if !order.images.is_empty() {
                progress("putting images on the node");
                node::images::import(&dir, &order.images).await?;
            }
        }
        info.pids.clone_from(&self.pids);
        Ok(info)
    }

    fn start(&mut self, name: &str, extra: &[String]) -> Result<i32> {
        let plane =
            self.plane.as_ref().context("this cluster was there already; its programs are not ours")?;
        if let Some(pid) = self.pids.get(name).filter(|pid| self.children.runs(**pid)) {
            bail!("{name} is running already (process {pid})");
        }
        let mut spec = plane.spec(name)?.clone();
        spec.args.extend(extra.iter().cloned());
        let pid = self.children.spawn(&spec)?;
        self.pids.insert(name.to_owned(), pid);
        Ok(pid)
    }

    /// Repeats a check until it holds; fails at the deadline or when a program of the cluster has ended.
    async fn until(&self, limit: Duration, what: &str, check: impl AsyncFn() -> Result<()>) -> Result<()> {
        let started = Instant::now();
        loop {
            let error = match check().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            for (name, pid) in &self.pids {
                if !self.children.runs(*pid) {
                    let exit = self.children.ended(*pid)?.await?;
                    bail!("{name} ended with {exit} while waiting for {what}:\n{}", self.log(name));
                }
            }
            if started.elapsed() > limit {
                return Err(
                    error.context(format!("waited {limit:?} for {what}:\n{}", self.log("kube-apiserver")))
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn log(&self, name: &str) -> String {
        self.plane
            .as_ref()
            .and_then(|plane| plane.spec(name).ok())
            .map_or_else(String::new, |spec| log_tail(&spec.log, 15))
    }

    async fn answer_requests(
        &mut self,
        input: &mut mpsc::Receiver<Input>,
        say: &(impl Fn(Notice) + Clone + 'static),
    ) {
        while let Some(Input::Request(Request { id, act })) = input.recv().await {
            let answer = move |result: Result<Value>| Notice::Answer {
                id,
                outcome: match result {
                    Ok(value) => Outcome::Done(value),
                    Err(error) => Outcome::Error(format!("{error:#}")),
                },
            };
            let result = match act {
                Act::Spawn(spec) => self.children.spawn(&spec).map(Value::Pid),
                Act::Signal { pid, signal } => self.children.signal(pid, signal).map(|()| Value::Nothing),
                Act::StartProgram { name, extra } => self.start(&name, &extra).map(Value::Pid),
                Act::StopProgram { name } => match self.pids.get(&name) {
                    Some(pid) => self.children.end(*pid, GRACE).await.map(Value::Ended),
                    None => Err(anyhow!("this cluster has no program {name:?}")),
                },
                Act::Wait { pid } => match self.children.ended(pid) {
                    Ok(ended) => {
                        let say = say.clone();
                        tokio::task::spawn_local(async move {
                            say(answer(ended.await.map(Value::Ended)));
                        });
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            say(answer(result));
        }
    }
}

/// The fake nodes. kwok turns them ready and keeps their leases.
async fn add_nodes(client: &Client, count: u16) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    for index in 1..=count {
        let name = format!("node-{index}");
        let node: Node = serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "labels": {
                    "kubernetes.io/hostname": name,
                    "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": "amd64",
                    "type": "kwok",
                },
            },
        }))
        .context("a node")?;
        api.create(&PostParams::default(), &node).await.with_context(|| format!("creating {name}"))?;
    }
    Ok(())
}

/// Every node takes Pods, and the namespace `default` has the ServiceAccount that Pods need.
async fn nodes_ready(client: &Client, count: u16, controllers: bool) -> Result<()> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let ready = nodes.iter().filter(|node| takes_pods(node, controllers)).count();
    if ready < usize::from(count) {
        let names: Vec<String> =
            nodes.iter().filter(|n| !takes_pods(n, controllers)).map(ResourceExt::name_any).collect();
        bail!("{ready} of {count} nodes take Pods, not {}", names.join(", "));
    }
    if controllers {
        Api::<ServiceAccount>::namespaced(client.clone(), "default").get("default").await?;
    }
    Ok(())
}

fn takes_pods(node: &Node, controllers: bool) -> bool {
    let ready = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    // The controllers take the taint off; without them it stays and Pods must tolerate it.
    let tainted = node.spec.iter().any(|spec| spec.taints.iter().flatten().count() > 0);
    ready && (!controllers || !tainted)
}

/// Where a supervised cluster keeps the log of a process.
pub(crate) fn log_path(dir: &Path, name: &str) -> PathBuf {
    dir.join("logs").join(format!("{name}.log"))
}
