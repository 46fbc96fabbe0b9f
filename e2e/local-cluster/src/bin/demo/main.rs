//! `cargo demo`: the quick start on a real control plane, live.
//!
//! Starts a bare cluster, installs CRDs and rights, runs every component as its own process under its own
//! ServiceAccount, applies `deploy/samples/quickstart.yaml` word for word and shows what happens to it. With
//! `--nodes real` containers run, and Helm installs the suite ([`real`]).

mod agent;
mod built_in;
mod chain;
mod checks;
mod platform;
mod pod_view;
mod real;
mod screen;
mod sdk;
mod signed;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use kube::api::DynamicObject;
use local_cluster::terminal::{Tone, seconds};
use local_cluster::{Cluster, ClusterOptions, Component, ComponentOptions, components, services};

use self::agent::{Agent, Choice};
use self::chain::Chain;
use self::checks::Scene;
use self::platform::Platform;
use self::screen::Screen;
use self::signed::Authority;
use self::story::Story;

/// What a reader of the README applies.
const QUICK_START: &str = include_str!("../../../../../deploy/samples/quickstart.yaml");
/// The components, in the order in which they start: admission before the first enrolment.
const COMPONENTS: &[&str] = &["authbridge-webhook", "runtime-ctl", "card-ctl"];
/// With signatures, policies follow the verdict.
const SIGNED_COMPONENTS: &[&str] = &["authbridge-webhook", "runtime-ctl", "card-ctl", "netpol-ctl"];
/// With the servers that the last two need.
const FULL_COMPONENTS: &[&str] =
    &["authbridge-webhook", "runtime-ctl", "card-ctl", "client-registration-ctl", "mlflow-ctl"];
/// How long a component may take to get ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// The kagenti quick start on a real control plane on this machine.
#[derive(Debug, Parser)]
#[command(name = "demo", bin_name = "cargo demo", version, max_term_width = 100)]
struct Cli {
    /// Exit after the checks: 0 only if all of them hold.
    #[arg(long)]
    once: bool,
    /// Go on with signatures: an unsigned, a signed and a tampered card, and the policies that follow.
    #[arg(long, conflicts_with = "kubeconfig")]
    signed: bool,
    /// Go on with identity and tracking: a real Keycloak and a real MLflow, from the AgentRuntime to a token and a logged
    /// run. Needs Java 17 and Python 3.11.
    #[arg(long, conflicts_with_all = ["kubeconfig", "signed"])]
    full: bool,
    /// What answers as the agent of the quick start.
    #[arg(long, value_enum, default_value = "auto", conflicts_with = "kubeconfig")]
    agent: Choice,
    /// What Pods run on: fake nodes need nothing, the real one needs root, Linux and a few packages.
    #[arg(long, value_enum, default_value = "fake", conflicts_with_all = ["kubeconfig", "signed", "full"])]
    nodes: Nodes,
    /// Use the cluster of this kubeconfig; its API server must run on this machine to reach the webhook.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

/// The value of `--nodes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Nodes {
    /// Two nodes on which Pods only seem to run; the components are processes of this machine
    Fake,
    /// One node with kubelet and containers; the components are installed with Helm
    Real,
}

impl Cli {
    fn components(&self) -> &'static [&'static str] {
        match (self.signed, self.full) {
            (true, _) => SIGNED_COMPONENTS,
            (_, true) => FULL_COMPONENTS,
            _ => COMPONENTS,
        }
    }

    fn scene(&self) -> Scene {
        match &self.kubeconfig {
            _ if self.signed => Scene::Unsigned,
            _ if self.full => Scene::Full,
            None => Scene::Bare,
            Some(_) => Scene::Foreign,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let screen = Screen::new();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            screen.error(&anyhow::Error::new(error).context("starting the async runtime"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(&cli, &screen));
    // A build that was interrupted may still run in a thread; the process must not wait for it.
    runtime.shutdown_background();
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            screen.error(&error);
            ExitCode::FAILURE
        }
    }
}

/// True when every check holds.
async fn run(cli: &Cli, screen: &Screen) -> Result<bool> {
    if cli.nodes == Nodes::Real {
        return real::run(cli.once, screen).await;
    }
    let started = Instant::now();
    screen.heading("The kagenti quick start on a real control plane");
    if cli.full {
        services::preflight::require().await?;
    }
    let cluster = tokio::select! {
        cluster = start_cluster(cli, screen) => cluster?,
        stop = interrupted() => return stop.map(|()| false),
    };
    let mut stage = Stage::default();
    let told = tokio::select! {
        told = stage.perform(&cluster, cli, screen) => told,
        stop = interrupted() => stop.map(|()| false),
    };
    if !matches!(told, Ok(true)) {
        stage.components.iter().for_each(|component| screen.log(component));
    }
    if stage.complete {
        screen.heading(&format!("Done in {}.", seconds(started.elapsed())));
        if !cli.once {
            screen.explore(&cluster);
            if let Some(platform) = &stage.platform {
                platform.explore(screen);
            }
            screen.plain("Ctrl-C ends it.", Tone::Faint);
            interrupted().await?;
        }
    }
    if cli.kubeconfig.is_some() {
        // The webhook must not stay registered when nobody serves it any more.
        let task = screen.task("taking the demo off your cluster");
        let cleaned = cluster.delete_objects(&stage.applied).await;
        task.cleared();
        cleaned.context("taking the demo off your cluster")?;
    }
    let task = screen.task("stopping");
    let stopped = cluster.stop().await;
    task.cleared();
    stopped?;
    told
}

/// Ends with Ctrl-C or SIGTERM.
async fn interrupted() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended.context("listening for Ctrl-C"),
        _ = term.recv() => Ok(()),
    }
}

async fn start_cluster(cli: &Cli, screen: &Screen) -> Result<Cluster> {
    let options = ClusterOptions {
        kubeconfig: cli.kubeconfig.clone(),
        // The agent of the demo has to answer at the address of its Pod, or the Pod has none.
        only_reachable_addresses: true,
        ..ClusterOptions::default()
    };
    let wanted = options.clone();
    let mut programs = [cli.components(), &["local-cluster"]].concat();
    if cli.signed {
        programs.push("agentcard-signer");
    }
    // Both show their own progress when there is something to build.
    tokio::task::spawn_blocking(move || {
        local_cluster::ensure_programs(&wanted)?;
        components::build(&programs, wanted.profile)
    })
    .await
    .context("building the components")??;
    start_shown(options, "control plane: etcd, API server, controllers, scheduler, 2 nodes", screen).await
}

/// Starts a cluster with a line that says what is started.
async fn start_shown(options: ClusterOptions, what: &str, screen: &Screen) -> Result<Cluster> {
    let task = screen.task(what);
    match Cluster::start(options).await {
        Ok(cluster) => {
            task.done();
            Ok(cluster)
        }
        Err(error) => {
            task.cleared();
            Err(error)
        }
    }
}

/// What the demo put into the cluster so far.
#[derive(Default)]
struct Stage {
    components: Vec<Component>,
    /// Only with `--full`.
    platform: Option<Platform>,
    applied: Vec<DynamicObject>,
    /// The story was told to its end, whatever the checks say.
    complete: bool,
}

impl Stage {
    /// Installs the suite and tells the story; true when every check holds.
    async fn perform(&mut self, cluster: &Cluster, cli: &Cli, screen: &Screen) -> Result<bool> {
        let task = screen.task("CRDs of group agent.kagenti.dev");
        cluster.install_crds().await?;
        task.done();
        // On somebody's cluster the agent is the container of the quick start.
        let agent = if cli.kubeconfig.is_some() {
            Agent::built_in()
        } else {
            let agent = Agent::choose(cli.agent, cluster, screen).await?;
            screen.plain(&format!("The agent is {}.", agent.describe()), Tone::Plain);
            agent
        };
        let authority = if cli.signed {
            let authority = Authority::new(&cluster.info().dir, agent.card())?;
            self.applied.extend(cluster.apply_yaml(&authority.namespace_and_bundle()).await?);
            Some(authority)
        } else {
            None
        };
        if cli.full {
            let platform = Platform::start(cluster, screen).await?;
            self.applied.extend(platform.prepare(cluster).await?);
            self.platform = Some(platform);
        }
        for name in cli.components() {
            self.start(cluster, name, cli.signed, screen).await?;
        }
        let mut story = Story::new(cluster, screen, cli.scene(), cli.components(), agent).await?;
        let mut checks = Box::pin(story.tell(QUICK_START, &mut self.applied)).await?;
        if let Some(authority) = authority {
            let card = authority.sign(cluster).await?;
            let title = format!("agentcard-signer signs the card as {}", signed::SPIFFE_ID);
            let yaml = signed::signed_config_map(&card);
            checks.extend(story.act(Scene::Signed, &title, &yaml, &mut self.applied).await?);
            let yaml = signed::signed_config_map(&signed::tampered(&card));
            let title = "somebody changes the description and leaves the signatures";
            checks.extend(story.act(Scene::Tampered, title, &yaml, &mut self.applied).await?);
        }
        // An agent that was not enrolled has nothing to show.
        if let Some(platform) = &self.platform
            && checks.iter().all(|check| check.holds)
        {
            let chain = Chain::new(cluster, screen, platform).await?;
            checks.extend(chain.follow(&mut self.applied).await?);
        }
        self.complete = true;
        Ok(checks.iter().all(|check| check.holds))
    }

    /// Starts a component with the rights it ships with; the webhook is registered as soon as it runs.
    async fn start(&mut self, cluster: &Cluster, name: &str, signed: bool, screen: &Screen) -> Result<()> {
        let mut options = match &self.platform {
            Some(platform) => platform.options(name),
            None if signed => signed::options(name),
            None => ComponentOptions::new(name),
        };
        if name == "card-ctl" {
            // ClusterIPs lead nowhere on a cluster without kube-proxy.
            options = options.args(["--fetch-dial=endpoints"]);
        }
        let task = screen
            .task(&format!("{name} as ServiceAccount {}/{}", options.namespace, options.service_account));
        let component = Component::start(cluster, options).await?;
        if let Ok(port) = component.webhook_port() {
            self.applied.extend(cluster.register_webhook(&format!("https://127.0.0.1:{port}"), None).await?);
        }
        let ready = component.wait_ready(READY_WITHIN).await;
        self.components.push(component);
        ready?;
        task.done();
        Ok(())
    }
}
