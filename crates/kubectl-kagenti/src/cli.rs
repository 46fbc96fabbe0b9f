//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::check::Check;
use crate::cluster::NoCluster;
use crate::print::Unwritable;
use crate::uninstall::{Refused, Uninstall};
use crate::values::{self, ValuesCommand};
use crate::version::Version;

/// Helps administrators of the kagenti operator suite
#[derive(Debug, Parser)]
#[command(name = "kubectl-kagenti", bin_name = "kubectl kagenti", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the versions of this plugin and of the installed components
    ///
    /// Warns when two of them are more than one minor version apart, which no release is made for, and of a rollout that has not
    /// ended.
    ///
    /// Exit code: 0, 1 when there is a warning or something could not be found out, 2 when the cluster cannot be asked.
    Version(Version),
    /// Explain why the suite does not work: rights, definitions, certificates, webhook, leaders
    ///
    /// Looks at the definitions and whether they have the fields of this release, at the components and why one is not ready, at
    /// their Leases, at the webhook's configurations, bundle, Service and certificate, and tries admission with two objects that
    /// are never stored. With `-n` also at a namespace of agents. What is wrong comes with what to do.
    ///
    /// All of it is asked with your own rights: what you may not ask is "unknown", and the right is named.
    ///
    /// Exit code: 0 when all is well (there may be warnings), 1 when something failed or is unknown, 2 when the cluster cannot be
    /// asked.
    #[command(after_help = CHECK, after_long_help = CHECK)]
    Check(Check),
    /// Take the suite's finalizers off objects that wait for components which are gone: the last resort
    ///
    /// An AgentRuntime waits for runtime-ctl, a credentials Secret for client-registration-ctl, an AgentCard of the previous
    /// operator for card-ctl or netpol-ctl. When they are gone for good nobody lets the objects go, nor their namespace. This
    /// takes exactly those finalizers off, and names what is not cleaned up for it, clients in Keycloak for instance. Components
    /// that would still clean up are named and nothing is done; finalizers of others stay.
    ///
    /// The suite itself is uninstalled with `helm uninstall`; the clean way is in docs/uninstall.md.
    ///
    /// Exit code: 0 when nothing waits any more, 1 when something still does or could not be looked at, 2 when nothing was
    /// changed.
    #[command(after_help = UNINSTALL, after_long_help = UNINSTALL)]
    Uninstall(Uninstall),
    /// Work on values files of the Helm chart
    #[command(subcommand)]
    Values(ValuesCommand),
}

const CHECK: &str = "\
Examples:
  # the suite
  kubectl kagenti check

  # also the namespace where an agent does not work
  kubectl kagenti check -n team1";

const UNINSTALL: &str = "\
Examples:
  # what waits, and for what
  kubectl kagenti uninstall --remove-finalizers --dry-run

  # let the objects of one namespace go
  kubectl kagenti uninstall --remove-finalizers -n team1

  # in a script
  kubectl kagenti uninstall --remove-finalizers --yes -o json";

/// Why a command did nothing, or could not go on: exit code 2.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Values(#[from] values::Error),
    #[error("{0}")]
    NoCluster(#[from] NoCluster),
    #[error("{0}")]
    Refused(#[from] Refused),
    #[error("{0}")]
    Output(#[from] Unwritable),
    #[error("a thread to work on cannot be had: {0}")]
    Runtime(std::io::Error),
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Version(version) => block_on(version.run()),
        Command::Check(check) => block_on(check.run()),
        Command::Uninstall(uninstall) => block_on(uninstall.run()),
        Command::Values(values) => values.run().map_err(Failure::from),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}

/// Runs what talks to a cluster.
fn block_on(work: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    // Libraries of this program may bring more than one provider of TLS; ring is the suite's.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Failure::Runtime)?.block_on(work)
}
