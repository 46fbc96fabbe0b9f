//! The sub-commands that every controller has, and what its own ones need.

use std::process::ExitCode;

use clap::Subcommand;
use kube::Client;

use crate::cli::{CommonArgs, Component};
use crate::metrics::Metrics;
use crate::process::DEFAULT_NAMESPACE;
use crate::selftest::{self, Right, Selftest};
use crate::{client, version};

/// Sub-commands of every controller (packaging §12).
#[derive(Clone, Debug, Subcommand)]
pub enum CommonCommand {
    /// Print the version
    Version,
    /// Check from inside the cluster that the controller works and has its rights
    Selftest {
        /// Run with the Pod's own identity, as `helm test` does
        #[arg(long)]
        in_cluster: bool,
    },
}

impl CommonCommand {
    /// Runs it; `rights` are those the controller cannot do without.
    pub async fn run(&self, component: &Component, args: &CommonArgs, rights: &[Right<'_>]) -> ExitCode {
        match self {
            Self::Version => {
                println!("{}", version::line(component));
                ExitCode::SUCCESS
            }
            Self::Selftest { in_cluster: _ } => match connect(component, args).await {
                Ok(client) => selftest(&client, component, args, rights).await,
                Err(code) => code,
            },
        }
    }
}

async fn selftest(
    client: &Client,
    component: &Component,
    args: &CommonArgs,
    rights: &[Right<'_>],
) -> ExitCode {
    let mut test = Selftest::new();
    test.check("api server", selftest::api_server(client)).await;
    test.check("rights", selftest::rights(client, rights)).await;
    if args.leader_elect {
        let lease = component.lease(&args.watch_namespaces);
        test.check("lease", selftest::lease_is_alive(client, operator_namespace(args), &lease)).await;
    }
    test.finish()
}

/// A client for sub-commands, which are no long-lived processes; without one the exit code, when the reason is said.
///
/// # Errors
/// The exit code 2: a kubeconfig, a ServiceAccount or credentials cannot be used.
pub async fn connect(component: &Component, args: &CommonArgs) -> Result<Client, ExitCode> {
    let metrics = Metrics::new(component.name);
    let config = client::config(args.kubeconfig.as_deref()).await;
    let made = config.and_then(|config| client::client(component, args, config, &metrics));
    made.map(|(client, _)| client).map_err(|error| {
        eprintln!("{}: {error}", component.name);
        ExitCode::from(2)
    })
}

/// The namespace of the suite, for sub-commands.
pub fn operator_namespace(args: &CommonArgs) -> &str {
    args.pod_namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
}
