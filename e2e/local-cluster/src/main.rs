//! `local-cluster`: a real Kubernetes control plane on this machine.

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use local_cluster::images::args::ImagesArgs;
use local_cluster::node::init::{self, InitArgs};
use local_cluster::programs::{Program, Programs, preflight};
use local_cluster::services;
use local_cluster::supervisor::shim;
use local_cluster::terminal::{Terminal, Tone};
use local_cluster::up::{self, UpArgs};

/// A real Kubernetes control plane on this machine, with fake nodes.
#[derive(Debug, Parser)]
#[command(name = "local-cluster", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster, print its kubeconfig and run until Ctrl-C.
    Up(UpArgs),
    /// Build the cluster programs that are missing, once per machine.
    Build,
    /// Say what this machine lacks for a first run.
    Doctor {
        /// Also look for what the real Keycloak and MLflow need (`cargo demo --full`, `just e2e-services`).
        #[arg(long)]
        full: bool,
        /// Also look for what a real node needs (`local-cluster up --nodes real`, `just e2e-node`).
        #[arg(long)]
        node: bool,
    },
    /// Print the path of one program (helm, kubectl, etcd, ...), building it when it is missing.
    Program {
        /// Its name.
        name: String,
    },
    /// Build the images of the suite as tarballs, without registry and daemon.
    Images(ImagesArgs),
    #[command(hide = true)]
    ExecShim(shim::ShimArgs),
    #[command(hide = true)]
    NodeInit(InitArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Up(args) => up::run(&args),
        Command::Build => build(),
        Command::Doctor { full, node } => doctor(full, node),
        Command::Program { name } => program(&name),
        Command::Images(args) => args.run(),
        Command::NodeInit(args) => init::run(&args),
        Command::ExecShim(args) => shim::run(args).map(|never| match never {}),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let terminal = Terminal::stderr();
            terminal.line(&format!("{} {error:#}", terminal.paint("error:", Tone::Bad)));
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<()> {
    let terminal = Terminal::stderr();
    let programs = Programs::ensure(&Program::ALL, terminal)?;
    for program in Program::ALL {
        let path = programs.path(program)?.display().to_string();
        // Never cut: the path is there to be copied.
        let name = console::pad_str(program.name(), 24, console::Alignment::Left, None);
        terminal.line(&format!("{} {path}", terminal.paint(&name, Tone::Strong)));
    }
    Ok(())
}

fn program(name: &str) -> Result<()> {
    let all = || Program::ALL.into_iter().chain(Program::NODE).chain([Program::Helm]);
    let known = all().map(Program::name).collect::<Vec<_>>().join(", ");
    let program = all().find(|program| program.name() == name);
    let program = program.with_context(|| format!("no program {name}, only {known}"))?;
    println!("{}", Programs::ensure(&[program], Terminal::stderr())?.path(program)?.display());
    Ok(())
}

fn doctor(full: bool, node: bool) -> Result<()> {
    let terminal = Terminal::stderr();
    let mut checks = preflight::run();
    if full {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        checks.extend(runtime.context("starting the async runtime")?.block_on(services::preflight::run()));
    }
    if node {
        checks.extend(local_cluster::node::preflight::run());
    }
    for check in &checks {
        let (mark, tone, text) = match &check.outcome {
            Ok(found) => ("✓", Tone::Good, found),
            Err(problem) => ("✗", Tone::Bad, problem),
        };
        let name = console::pad_str(&check.name, 18, console::Alignment::Left, None);
        terminal.line(&format!("{} {name} {text}", terminal.paint(mark, tone)));
    }
    let missing = checks.iter().filter(|check| check.outcome.is_err()).count();
    ensure!(missing == 0, "{missing} of {} things are missing", checks.len());
    Ok(())
}
