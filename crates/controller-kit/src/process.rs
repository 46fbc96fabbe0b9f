//! One process from its flags to its exit code.
//!
//! ```no_run
//! use std::process::ExitCode;
//! use controller_kit::cli::{self, Cli, Component, Requests};
//! use controller_kit::commands::CommonCommand;
//! use controller_kit::process;
//!
//! const COMPONENT: Component =
//!     Component { name: "runtime-ctl", about: "Enrols workloads", requests: Requests::COMMON };
//!
//! #[derive(Clone, Debug, clap::Args)]
//! struct Settings {}
//!
//! #[tokio::main]
//! async fn main() -> ExitCode {
//!     let cli: Cli<Settings, CommonCommand> = cli::parse(&COMPONENT);
//!     process::serve(&COMPONENT, &cli.common, |process| {
//!         let leadership = process.leadership();
//!         process.spawn_until_stop("controller", |stop| async move {
//!             leadership.wait_until_leader().await;
//!             stop.cancelled().await;
//!         });
//!     })
//!     .await
//! }
//! ```

mod signals;
mod system;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::cli::{CommonArgs, Component};
use crate::client::{self, ClientError};
use crate::controller::Handles;
use crate::events::EventRecorder;
use crate::lease::{Candidate, Leadership, LeaseTiming, TimingError};
use crate::legacy_guard::LegacyGuard;
use crate::metrics::Metrics;
use crate::probes::{self, Heartbeat};
use crate::readiness::Readiness;
use crate::scope::Scope;
use crate::serve::{BindError, Listener, Server};
use crate::supervise::{Ended, Supervisor, TaskResult, Tasks};
use crate::telemetry::{LogLevelError, Telemetry};
use crate::tls::TlsError;
use crate::version;
use crate::watch::Watches;
use signals::Signals;
use system::System;

/// Namespace of a process that nobody told where it runs (webhook §2).
pub const DEFAULT_NAMESPACE: &str = api_types::names::DEFAULT_OPERATOR_NAMESPACE;
/// Name of the readiness check that fails until the component has set itself up.
const STARTUP_CHECK: &str = "startup";
/// Name of the readiness check that fails from the first signal on.
const SHUTDOWN_CHECK: &str = "shutdown";
/// Running reconciles may take this long after SIGTERM (runtime §19.1).
const GRACE: Duration = Duration::from_secs(8);
/// Probes, metrics and the release of the Lease, after the work has ended.
const SYSTEM_GRACE: Duration = Duration::from_secs(3);
/// Traces at the end (packaging §12).
const FLUSH: Duration = Duration::from_secs(2);
/// A lost Lease ends the process within a second (packaging §12); this much of it is for the logs.
const ABRUPT_GRACE: Duration = Duration::from_millis(300);

/// Why a process cannot start. All of these are settings or files: exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `--log-level`.
    #[error(transparent)]
    LogLevel(#[from] LogLevelError),
    /// Kubeconfig, ServiceAccount or credentials.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A listen address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// `--leader-elect-*`.
    #[error(transparent)]
    Timing(#[from] TimingError),
    /// `--metrics-cert-*`.
    #[error("metrics certificate: {0}")]
    MetricsCertificate(#[source] TlsError),
    /// The system refuses to tell about signals.
    #[error("cannot listen to signals: {0}")]
    Signals(#[source] std::io::Error),
}

impl StartError {
    /// Prints the error for people and gives the exit code 2 (README decision 21).
    pub fn report(&self, component: &Component) -> ExitCode {
        eprintln!("{}: {self}", component.name);
        ExitCode::from(2)
    }
}

/// Starts a process, has `set_up` start the tasks of the component, and runs until a signal or until a task ends.
pub async fn serve(
    component: &'static Component,
    args: &CommonArgs,
    set_up: impl FnOnce(&Process),
) -> ExitCode {
    match Process::start(component, args).await {
        Ok(process) => {
            set_up(&process);
            process.run().await
        }
        Err(error) => error.report(component),
    }
}

/// A started process: probes, metrics and election run, nothing of the component does yet.
pub struct Process {
    client: Client,
    scope: Scope,
    operator_namespace: String,
    pod_name: String,
    concurrency: usize,
    http2: bool,
    readiness: Readiness,
    metrics: Metrics,
    events: EventRecorder,
    leadership: Leadership,
    telemetry: Telemetry,
    signals: Signals,
    work: Supervisor,
    system: Supervisor,
    leaving: CancellationToken,
    stop: CancellationToken,
    halt: CancellationToken,
    grace: Duration,
    shutdown_delay: Duration,
}

impl Process {
    /// Sets up everything the process contract names. Opens no connection to the API server, so it
    /// also starts without one and becomes ready when there is one. Must run in a tokio runtime.
    pub async fn start(component: &'static Component, args: &CommonArgs) -> Result<Self, StartError> {
        // An error means that somebody installed one before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pod_name = args.pod_name.clone().filter(|name| !name.is_empty()).unwrap_or_else(instance_name);
        let telemetry = Telemetry::start(component, args, &pod_name)?;
        log_panics();
        tracing::info!(component = component.name, version = %version::text(), pod = %pod_name, "starting");
        let operator_namespace =
            args.pod_namespace.clone().filter(|ns| !ns.is_empty()).unwrap_or_else(|| {
                tracing::warn!("POD_NAMESPACE is not set, using {DEFAULT_NAMESPACE}");
                DEFAULT_NAMESPACE.to_owned()
            });
        let timing = LeaseTiming {
            lease_duration: args.leader_elect_lease_duration,
            renew_deadline: args.leader_elect_renew_deadline,
            retry_period: args.leader_elect_retry_period,
        }
        .validate()?;
        let signals = Signals::listen().map_err(StartError::Signals)?;
        let metrics = Metrics::new(component.name);
        let readiness = Readiness::new();
        // Checks are registered one by one; until all are, having none that fails means nothing.
        readiness.register(STARTUP_CHECK, "the process is starting");
        let config = client::config(args.kubeconfig.as_deref()).await?;
        let (client, reachability) = client::client(component, args, config, &metrics)?;
        let probe_listener = Listener::bind("probes", args.health_probe_bind_address).await?;
        let metrics_listener = Listener::bind("metrics", args.metrics_bind_address).await?;

        let (stop, halt) = (CancellationToken::new(), CancellationToken::new());
        let (work, system) = (Supervisor::new(stop.clone()), Supervisor::new(halt.clone()));
        let system = System { tasks: system.tasks(), supervisor: system, halt: halt.clone() };
        let heartbeat = Heartbeat::new();
        system.endless("heartbeat", heartbeat.clone().run());
        if let Some(listener) = probe_listener {
            let router = probes::router(heartbeat, readiness.clone(), telemetry.log_level());
            system.serve("probes", Server::small(), listener, router);
        }
        if let Some(listener) = metrics_listener {
            system.metrics_door(listener, args, &client, &metrics).await?;
        }
        system.reachability(reachability, &client, &readiness);
        let (events, sender) = EventRecorder::new(client.clone(), &metrics, component.name, &pod_name);
        system.events(sender);
        let (guard, guard_open) = LegacyGuard::new(client.clone(), &operator_namespace, readiness.clone());
        system.endless("legacy-guard", guard.run());
        let leadership = if args.leader_elect {
            let candidate = Candidate {
                namespace: operator_namespace.clone(),
                name: component.lease(&args.watch_namespaces),
                identity: pod_name.clone(),
                timing,
            };
            let (election, leadership) = candidate.stand(client.clone(), &metrics, readiness.clone());
            system.election(election);
            leadership
        } else {
            Leadership::always()
        };
        Ok(Self {
            client,
            scope: args.watch_namespaces.clone(),
            operator_namespace,
            pod_name,
            concurrency: usize::from(args.concurrency),
            http2: args.enable_http2,
            readiness,
            metrics,
            events,
            leadership: leadership.with_guard(guard_open),
            telemetry,
            signals,
            work,
            system: system.supervisor,
            leaving: CancellationToken::new(),
            stop,
            halt,
            grace: GRACE,
            shutdown_delay: Duration::ZERO,
        })
    }

    /// What the controller of this process works with.
    pub fn handles(&self) -> Handles {
        Handles {
            client: self.client(),
            operator_namespace: self.operator_namespace.clone(),
            scope: self.scope.clone(),
            metrics: self.metrics.clone(),
            readiness: self.readiness(),
            events: self.events(),
            leadership: self.leadership(),
            clock: Timestamp::now,
        }
    }

    /// The client; clone it freely.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// What may be looked at.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The namespace this process runs in.
    pub fn operator_namespace(&self) -> &str {
        &self.operator_namespace
    }

    /// The name of this replica.
    pub fn pod_name(&self) -> &str {
        &self.pod_name
    }

    /// `--concurrency`.
    pub fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// `--enable-http2`.
    pub fn http2(&self) -> bool {
        self.http2
    }

    /// The list behind `/readyz`.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// The registry behind `/metrics`.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What [watches](crate::watch) report to.
    pub fn watches(&self) -> Watches {
        Watches { metrics: self.metrics.clone(), readiness: self.readiness.clone() }
    }

    /// The recorder, reporting as the component; see [`EventRecorder::reporting_as`].
    pub fn events(&self) -> EventRecorder {
        self.events.clone()
    }

    /// Cancelled by a signal, while the component goes on for the delay of [`Process::set_shutdown_delay`]: for
    /// [`crate::serve::Server::leaving`].
    pub fn leaving(&self) -> CancellationToken {
        self.leaving.clone()
    }

    /// Cancelled when the component is to stop taking new work.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Whether this replica may write.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Starts tasks of the component, now or later.
    pub fn tasks(&self) -> Tasks {
        self.work.tasks()
    }

    /// Starts a task that runs until [`Process::stop`]. If it ends before, the process ends with 1.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = TaskResult> + Send + 'static,
    {
        self.work.tasks().spawn(name, task);
    }

    /// As [`Process::spawn`], for a task that never ends by itself and may be cut off anywhere, such as a watch.
    pub fn spawn_endless(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_until_stop(name, |stop| async move {
            stop.run_until_cancelled(task).await;
        });
    }

    /// As [`Process::spawn`], for a task that ends in order when it is told to stop.
    pub fn spawn_until_stop<F>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = task(self.stop());
        self.spawn(name, async move {
            task.await;
            Ok(())
        });
    }

    /// How long running work may take after SIGTERM; 8 s unless set.
    pub fn set_grace(&mut self, grace: Duration) {
        self.grace = grace;
    }

    /// How long the process goes on as before after SIGTERM, unready, so that callers learn to go
    /// elsewhere (packaging §10); none unless set. With one a lost Lease ends the process in the same
    /// way, and with 1: everything that needs the Lease has to ask [`Leadership`] before it writes.
    pub fn set_shutdown_delay(&mut self, delay: Duration) {
        self.shutdown_delay = delay;
    }

    /// Runs until a signal or until a task ends, and ends in order (packaging §12). The process can be
    /// ready only from here on: register the component's checks before. A second signal exits from
    /// here, and so does a lost Lease where there is no shutdown delay.
    pub async fn run(mut self) -> ExitCode {
        self.readiness.set_ok(STARTUP_CHECK);
        let ending = tokio::select! {
            name = self.signals.next() => Ending::Signal(name),
            ended = self.work.first_end() => Ending::Work(ended),
            ended = self.system.first_end() => Ending::System(ended),
        };
        self.readiness.set_failing(SHUTDOWN_CHECK, "the process is stopping");
        self.leaving.cancel();
        match ending {
            // The Leadership has ended already, so nothing that needs the Lease is written; calls of others are answered
            // until they go elsewhere.
            Ending::System(ended) if ended.task == system::LEASE_TASK && !self.shutdown_delay.is_zero() => {
                tracing::error!(task = ended.task, "cannot go on without it, stopping");
                let delay = self.shutdown_delay;
                self.wind_down(ExitCode::FAILURE, delay).await
            }
            Ending::System(ended) => {
                // Without its lease or its probes the process must not go on for another second.
                tracing::error!(task = ended.task, "cannot go on without it, exiting at once");
                self.stop.cancel();
                let _ = tokio::time::timeout(ABRUPT_GRACE, self.telemetry.flush(ABRUPT_GRACE)).await;
                std::process::exit(1);
            }
            Ending::Signal(name) => {
                tracing::info!(signal = name, "stopping");
                let delay = self.shutdown_delay;
                self.wind_down(ExitCode::SUCCESS, delay).await
            }
            Ending::Work(ended) => {
                tracing::error!(task = ended.task, "cannot go on without it, stopping");
                self.wind_down(ExitCode::FAILURE, Duration::ZERO).await
            }
        }
    }

    async fn wind_down(self, code: ExitCode, delay: Duration) -> ExitCode {
        let Self { mut signals, work, system, telemetry, grace, halt, .. } = self;
        let orderly = async {
            tokio::time::sleep(delay).await;
            let cut = work.stop(grace).await;
            if !cut.is_empty() {
                tracing::warn!(tasks = ?cut, "not finished within {grace:?}, cut off");
            }
            // Nothing writes any more: the Lease may go to somebody else.
            halt.cancel();
            system.stop(SYSTEM_GRACE).await;
            tracing::info!("stopped");
            telemetry.flush(FLUSH).await;
        };
        tokio::select! {
            () = orderly => code,
            name = signals.next() => {
                tracing::warn!(signal = name, "second signal, exiting at once");
                std::process::exit(130);
            }
        }
    }
}

enum Ending {
    Signal(&'static str),
    Work(Ended),
    System(Ended),
}

/// A name for a replica outside a Pod: two processes on one machine must not share it, or they would
/// take each other's Lease for their own.
fn instance_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}-{:08x}", if host.is_empty() { "local" } else { host }, fastrand::u32(..))
}

/// Panics become log lines. Whether the process survives one is decided by who catches it.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = crate::reconcile::panic_message(panic.payload());
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(%location, "panic: {message}");
    }));
}
