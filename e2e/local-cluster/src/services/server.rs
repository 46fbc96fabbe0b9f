//! A server of a cluster that can be stopped and started again on the same address.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cluster::Cluster;
use crate::ports::Port;
use crate::supervisor::protocol::{Exit, ProcessSpec, Signal};
use crate::usage::Usage;
use crate::wait::log_tail;
use crate::{http, wait_for};

/// How long a server may take to end by itself.
const GRACE: Duration = Duration::from_secs(10);

/// A process that serves HTTP on loopback. It ends with the cluster, or when the value is dropped.
#[derive(Debug)]
pub struct Server {
    cluster: Cluster,
    process: Process,
    pid: Mutex<i32>,
}

/// What is started.
pub(super) struct Process {
    pub(super) spec: ProcessSpec,
    /// Keeps the port from other clusters, also while the server is stopped.
    pub(super) port: Port,
    /// Answers with success once the server works.
    pub(super) probe: String,
    /// Longest time until then.
    pub(super) ready_within: Duration,
}

/// Its environment has passwords.
impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.spec.name)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Starts it and waits until it works.
    pub(super) async fn start(cluster: &Cluster, process: Process) -> Result<Self> {
        let pid = cluster.start_process(process.spec.clone()).await?;
        let server = Self { cluster: cluster.clone(), process, pid: Mutex::new(pid) };
        server.wait_ready().await?;
        Ok(server)
    }

    /// Waits until it works; an error carries the end of its log.
    async fn wait_ready(&self) -> Result<()> {
        let Process { spec, probe, ready_within, .. } = &self.process;
        let name = &spec.name;
        let outcome = wait_for(*ready_within, &format!("{name} to answer"), async || {
            if !self.is_running() {
                // Looking again cannot help: hand the failure out as the value.
                return Ok(Some(false));
            }
            let (status, _) = http::get(probe).await?;
            if !status.is_success() {
                bail!("{probe} says {status}");
            }
            Ok(Some(true))
        })
        .await;
        match outcome {
            Ok(true) => Ok(()),
            Ok(false) => bail!("{name} has ended; its log ends with:\n{}", self.log_tail()),
            Err(error) => Err(error.context(format!("the log of {name} ends with:\n{}", self.log_tail()))),
        }
    }

    /// Ends it and waits until it is gone.
    pub async fn stop(&self) -> Result<Exit> {
        self.cluster.signal_process(self.pid(), Signal::Term).await?;
        if let Ok(exit) = tokio::time::timeout(GRACE, self.cluster.process_ended(self.pid())).await {
            return exit;
        }
        self.kill9().await
    }

    /// Kills it without warning and waits until it is gone.
    pub async fn kill9(&self) -> Result<Exit> {
        self.cluster.signal_process(self.pid(), Signal::Kill).await?;
        self.cluster.process_ended(self.pid()).await
    }

    /// Freezes it ([`Signal::Stop`]) or lets it go on ([`Signal::Cont`]): it accepts connections and does not answer.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.cluster.signal_process(self.pid(), signal).await
    }

    /// Starts it again after its end, on the same address and with the same settings, and waits until it works.
    pub async fn start_again(&self) -> Result<()> {
        if self.is_running() {
            bail!("{} still runs; stop it first", self.process.spec.name);
        }
        let pid = self.cluster.start_process(self.process.spec.clone()).await?;
        *self.pid.lock().unwrap_or_else(PoisonError::into_inner) = pid;
        self.wait_ready().await
    }

    /// Process id of the running, or last, process.
    pub fn pid(&self) -> i32 {
        *self.pid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        Usage::of(self.pid()).is_ok()
    }

    /// Port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.process.port.number()
    }

    /// The file it writes to.
    pub fn log_path(&self) -> &Path {
        &self.process.spec.log
    }

    /// The end of its log, for messages.
    pub fn log_tail(&self) -> String {
        log_tail(&self.process.spec.log, 20)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.cluster.link().signal_and_forget(self.pid(), Signal::Kill);
    }
}
