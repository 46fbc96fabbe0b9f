//! `local-cluster up`: the supervisor, for people and for the library.

use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::cluster::{ensure_machine, wanted_programs};
use crate::images;
use crate::node;
use crate::options::ClusterOptions;
use crate::programs::Programs;
use crate::supervisor::protocol::{Notice, Order, Request};
use crate::supervisor::server::{Input, serve};
use crate::terminal::{Terminal, Tone};

/// Arguments of `local-cluster up`.
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// Number of fake nodes, or `real`: one node that runs Pods in containers (needs root).
    #[arg(long, default_value = "2")]
    nodes: Nodes,
    /// Put the suite's images on the real node, compiled quickly, with stand-ins for the agent of the quick start and
    /// for AuthBridge; KAGENTI_IMAGES=<directory> takes tarballs that are there already.
    #[arg(long)]
    images: bool,
    /// Requests per second for the controllers and the scheduler; 0 keeps their own limits.
    #[arg(long, default_value_t = 500)]
    controller_qps: u32,
    /// Further argument of kube-apiserver, for example --api-server-arg=--v=4; may be repeated.
    #[arg(long = "api-server-arg", allow_hyphen_values = true)]
    api_server_args: Vec<String>,
    /// Write the admin kubeconfig to this file as well.
    #[arg(long)]
    write_kubeconfig: Option<PathBuf>,
    /// Talk JSON lines with the program that started this one and end with it.
    #[arg(long, hide = true)]
    supervised: bool,
}

/// The nodes of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// So many, played by kwok.
    Fake(u16),
    /// One with kubelet and containers.
    Real,
}

impl FromStr for Nodes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "real" {
            return Ok(Self::Real);
        }
        text.parse()
            .map(Self::Fake)
            .map_err(|error| format!("{error}; give a number of fake nodes, or `real`"))
    }
}

/// Runs a cluster until Ctrl-C, SIGTERM, SIGHUP or (supervised) the end of standard input.
pub fn run(args: &UpArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    let result = LocalSet::new().block_on(&runtime, async {
        let (sender, input) = mpsc::channel(64);
        end_on_signals(&sender)?;
        if args.supervised { supervised(sender, input).await } else { for_people(args, input).await }
    });
    // A thread may still wait for standard input; nobody needs it any more.
    runtime.shutdown_background();
    result
}

/// A signal ends the cluster, also while it is still starting.
fn end_on_signals(sender: &mpsc::Sender<Input>) -> Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind).context("listening for signals")?;
        let sender = sender.clone();
        tokio::task::spawn_local(async move {
            if signals.recv().await.is_some() {
                let _ = sender.send(Input::End).await;
            }
        });
    }
    Ok(())
}

async fn supervised(sender: mpsc::Sender<Input>, input: mpsc::Receiver<Input>) -> Result<()> {
    let mut first = String::new();
    std::io::stdin().read_line(&mut first).context("reading the order from standard input")?;
    let order: Order = serde_json::from_str(&first).context("understanding the order")?;
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let Ok(request) = serde_json::from_str::<Request>(&line) else { break };
            if sender.blocking_send(Input::Request(request)).is_err() {
                return;
            }
        }
        let _ = sender.blocking_send(Input::End);
    });
    let say = |notice: Notice| {
        if let Ok(line) = serde_json::to_string(&notice) {
            // A closed pipe is noticed on standard input as well.
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
    };
    // The caller was told what went wrong; saying it twice would confuse.
    let _ = serve(order, input, say).await;
    Ok(())
}

async fn for_people(args: &UpArgs, input: mpsc::Receiver<Input>) -> Result<()> {
    let terminal = Terminal::stderr();
    let (nodes, real_node) = match args.nodes {
        Nodes::Fake(count) => (count, false),
        Nodes::Real => (0, true),
    };
    let options = ClusterOptions {
        nodes,
        real_node,
        controller_qps: (args.controller_qps > 0).then_some(args.controller_qps),
        api_server_args: args.api_server_args.clone(),
        ..ClusterOptions::default()
    };
    ensure!(real_node || !args.images, "--images needs --nodes real: fake nodes run no containers");
    ensure_machine(&options)?;
    let programs = Programs::ensure(&wanted_programs(&options), terminal)?;
    let pause = node::images::pause_program(&options)?;
    let images = if args.images { images::for_a_node()? } else { Vec::new() };
    let copy = args.write_kubeconfig.clone();
    let started = std::time::Instant::now();
    let say = move |notice: Notice| match notice {
        Notice::Progress { text } => terminal.line(&terminal.paint(&text, Tone::Faint)),
        Notice::Ready(info) => {
            let took = crate::terminal::seconds(started.elapsed());
            terminal.line(&terminal.paint(&format!("cluster ready in {took}; Ctrl-C ends it"), Tone::Good));
            terminal.line(&format!("logs in {}", info.dir.join("logs").display()));
            if let Some(copy) = &copy
                && let Err(error) = std::fs::copy(&info.kubeconfig, copy)
            {
                let text = format!("writing {}: {error}", copy.display());
                terminal.line(&terminal.paint(&text, Tone::Bad));
            }
            // On standard output, so that it can be used: export $(local-cluster up).
            println!("KUBECONFIG={}", info.kubeconfig.display());
        }
        Notice::Failed { .. } | Notice::Answer { .. } => {}
    };
    serve(Order { options, programs, pause, images }, input, say).await.context("starting the local cluster")
}
