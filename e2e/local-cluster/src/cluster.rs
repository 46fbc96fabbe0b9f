//! The handle of a running cluster.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kube::Client;

use crate::access;
use crate::node;
use crate::options::ClusterOptions;
use crate::programs::{Program, Programs};
use crate::run::{run_within, stdout_of};
use crate::supervisor::link::Link;
use crate::supervisor::protocol::{Act, ClusterInfo, Exit, Order, ProcessSpec, Signal, Value};
use crate::supervisor::server::log_path;
use crate::terminal::Terminal;

/// How long one call of kubectl may take. Its own `--timeout` may be as long as two minutes.
const KUBECTL_WITHIN: Duration = Duration::from_mins(5);

/// A running cluster. The last clone that is dropped ends it and everything started for it; so does the end
/// of this process, however it comes.
#[derive(Clone, Debug)]
pub struct Cluster {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    link: Link,
    info: ClusterInfo,
    options: ClusterOptions,
    kubectl: PathBuf,
}

/// The programs that a cluster with these options runs, and kubectl.
pub(crate) fn wanted_programs(options: &ClusterOptions) -> Vec<Program> {
    let mut wanted = vec![Program::Kubectl];
    if options.kubeconfig.is_none() {
        wanted.extend([Program::Etcd, Program::KubeApiserver]);
        wanted.extend(options.controller_manager.then_some(Program::KubeControllerManager));
        wanted.extend(options.scheduler.then_some(Program::KubeScheduler));
        wanted.extend((options.nodes > 0).then_some(Program::Kwok));
        wanted.extend(Program::NODE.into_iter().filter(|_| options.real_node));
    }
    wanted
}

/// Builds the programs of a cluster with these options that are missing on this machine, with progress on standard error. A cluster
/// does it by itself at its start; this is for callers that show their own progress there.
pub fn ensure_programs(options: &ClusterOptions) -> Result<()> {
    Programs::ensure(&wanted_programs(options), Terminal::stderr()).map(drop)
}

/// What a real node needs of the machine; nothing without one.
pub(crate) fn ensure_machine(options: &ClusterOptions) -> Result<()> {
    if options.real_node { node::preflight::ensure(Terminal::stderr()) } else { Ok(()) }
}

impl Cluster {
    /// Starts a cluster (about 4 s) after building whatever program is missing on this machine (minutes,
    /// with progress on standard error).
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        let (link, info, kubectl, options) = tokio::task::spawn_blocking(move || {
            ensure_machine(&options)?;
            let programs = Programs::ensure(&wanted_programs(&options), Terminal::stderr())?;
            let supervisor = crate::components::build(&["local-cluster"], options.profile)?;
            let kubectl = programs.path(Program::Kubectl)?.to_owned();
            let pause = node::images::pause_program(&options)?;
            let order = Order { options, programs, pause, images: Vec::new() };
            let (link, info) = Link::start(supervisor.path("local-cluster")?, &order, |_| {})?;
            anyhow::Ok((link, info, kubectl, order.options))
        })
        .await
        .context("starting the local cluster")??;
        Ok(Self { inner: Arc::new(Inner { link, info, options, kubectl }) })
    }

    /// Admin kubeconfig of the cluster.
    pub fn kubeconfig(&self) -> &Path {
        &self.inner.info.kubeconfig
    }

    /// Where everything is: directory, ports, process ids.
    pub fn info(&self) -> &ClusterInfo {
        &self.inner.info
    }

    /// The options it was started with.
    pub fn options(&self) -> &ClusterOptions {
        &self.inner.options
    }

    /// A client with admin rights. Make one per async runtime (every `#[tokio::test]` has its own): its
    /// connections end with the runtime that made them.
    pub async fn client(&self) -> Result<Client> {
        access::client(self.kubeconfig()).await
    }

    /// Runs kubectl as admin and returns its standard output; an error carries what it said. One that does not end
    /// within 5 min is killed.
    pub async fn kubectl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        let mut command = tokio::process::Command::new(&self.inner.kubectl);
        // Its usual cache is keyed by address, and a port may have belonged to another cluster an hour ago.
        let cache = self.info().dir.join("kubectl-cache");
        command.env("KUBECONFIG", self.kubeconfig()).arg("--cache-dir").arg(cache).args(args);
        let output = run_within(command, KUBECTL_WITHIN).await.context("running kubectl")?;
        stdout_of("kubectl", &output)
    }

    /// Puts images into the real node, from tarballs as [`crate::images`] writes them. Pods find them under their
    /// references; nothing is pulled.
    pub async fn import_images(&self, files: &[PathBuf]) -> Result<()> {
        node::images::import(&self.info().dir, files).await
    }

    /// The kubectl that belongs to the cluster.
    pub fn kubectl_path(&self) -> &Path {
        &self.inner.kubectl
    }

    /// Metrics of the API server in the Prometheus text format, such as
    /// `apiserver_admission_webhook_admission_duration_seconds`.
    pub async fn metrics(&self) -> Result<String> {
        let request = http::Request::get("/metrics").body(Vec::new()).context("a request")?;
        self.client().await?.request_text(request).await.context("reading the API server's metrics")
    }

    /// Starts a process that ends with the cluster and returns its id. With `netns` of [`Cluster::info`] it
    /// runs where the Pods' addresses are: what it listens on is reached at the address of any Pod.
    pub async fn start_process(&self, spec: ProcessSpec) -> Result<i32> {
        self.link().spawn(spec).await
    }

    /// Waits until a process of [`Cluster::start_process`] has ended, and says how.
    pub async fn process_ended(&self, pid: i32) -> Result<Exit> {
        match self.link().ask(Act::Wait { pid }).await? {
            Value::Ended(exit) => Ok(exit),
            other => bail!("unexpected answer {other:?}"),
        }
    }

    /// Sends a signal to a process of [`Cluster::start_process`], and to whatever that has started.
    pub async fn signal_process(&self, pid: i32, signal: Signal) -> Result<()> {
        self.link().signal(pid, signal).await
    }

    /// Where the cluster keeps the log of a process with this name.
    pub fn log_path(&self, name: &str) -> PathBuf {
        log_path(&self.info().dir, name)
    }

    /// Ends the cluster and waits until every process is gone. Later calls on this or another clone fail.
    pub async fn stop(&self) -> Result<()> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || inner.link.stop()).await.context("stopping the cluster")
    }

    /// The conversation with the supervisor.
    pub(crate) fn link(&self) -> &Link {
        &self.inner.link
    }

    /// Waits until the API server answers `/readyz` with 200.
    pub async fn wait_ready(&self, limit: Duration) -> Result<()> {
        let client = self.client().await?;
        crate::wait_for(limit, "the API server to get ready", async || {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok(client.request_text(request).await.map(|_| Some(()))?)
        })
        .await
    }
}
