//! The sub-commands that every controller has, and what its own ones need.

use std::process::ExitCode;

use clap::Subcommand;
use kube::Client;

use crate::cli::{CommonArgs, Component};
use crate::metrics::Metrics;
use crate::process::DEFAULT_NAMESPACE;
use crate::selftest::{self, Selftest, SelftestArgs};
use crate::{client, version};

/// Sub-commands of every controller (packaging §12).
#[derive(Clone, Debug, Subcommand)]
pub enum CommonCommand {
    /// Print the version
    Version,
    /// Check from inside the cluster that the controller works and has its rights
    Selftest(SelftestArgs),
}

impl CommonCommand {
    /// Runs it.
    pub async fn run(&self, component: &Component, args: &CommonArgs) -> ExitCode {
        match self {
            Self::Version => {
                println!("{}", version::line(component));
                ExitCode::SUCCESS
            }
            Self::Selftest(told) => match connect(component, args).await {
                Ok(client) => {
                    let mut test = Selftest::new();
                    selftest::common(&mut test, &client, component, args, told).await;
                    test.finish()
                }
                Err(code) => code,
            },
        }
    }
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
    args.pod_namespace.as_deref().filter(|name| !name.is_empty()).unwrap_or(DEFAULT_NAMESPACE)
}
