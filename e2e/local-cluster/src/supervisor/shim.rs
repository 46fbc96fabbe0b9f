//! The last step before a program of the cluster starts: `local-cluster exec-shim`.
//!
//! Parent-death signals can only be asked for by the child itself, between fork and exec, and running code
//! there needs `unsafe`. A tiny first program can do it safely: it asks the kernel to be killed with its
//! parent and then becomes the wanted program (the request survives the exec).

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Arguments of the shim.
#[derive(Debug, clap::Args)]
pub struct ShimArgs {
    /// Process id of the supervisor that starts it.
    #[arg(long)]
    parent: i32,
    /// Network namespace to enter first.
    #[arg(long)]
    netns: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes the wanted program; returns only when that fails.
pub fn run(args: ShimArgs) -> Result<Infallible> {
    die_with(args.parent)?;
    if let Some(netns) = &args.netns {
        enter(netns)?;
    }
    let mut words = args.command.into_iter();
    let program = words.next().context("no program to start")?;
    let error = Command::new(&program).args(words).exec();
    Err(error).with_context(|| format!("starting {}", program.display()))
}

#[cfg(target_os = "linux")]
fn die_with(parent: i32) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .context("asking to die with the parent")?;
    // The parent may have died before the request; then nobody sends the signal any more.
    if nix::unistd::getppid().as_raw() != parent {
        bail!("the supervisor {parent} is gone");
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn die_with(_parent: i32) -> Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn enter(netns: &std::path::Path) -> Result<()> {
    let file = std::fs::File::open(netns).with_context(|| format!("opening {}", netns.display()))?;
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("entering the network namespace {}", netns.display()))
}

#[cfg(not(target_os = "linux"))]
fn enter(netns: &std::path::Path) -> Result<()> {
    bail!("network namespaces need Linux ({})", netns.display())
}
