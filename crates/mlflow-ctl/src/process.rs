//! The process: command line, sub-commands, and the tasks of the controller.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::{Parser, Subcommand};
use controller_kit::{
    cli::{self, CommonArgs},
    client,
    metrics::Metrics,
    process::Process,
    scope::Scope,
    selftest::{self, Right, Selftest},
    version,
};
use jiff::Timestamp;
use kube::Client;
use rest_client::{ca::CaFile, client::StartError};

use crate::{
    context::{Context, Parts},
    metrics::ServerWatch,
    settings::{COMPONENT, Settings},
    tracking::Tracking,
    watches, work,
};

/// How often the CA file is looked at.
const CA_POLL: Duration = Duration::from_secs(10);

/// The command line.
#[derive(Clone, Debug, Parser)]
pub struct Cli {
    /// Flags that every component has.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Flags of this one.
    #[command(flatten)]
    pub own: Settings,
    /// Something else than running the controller.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Sub-commands (packaging §12).
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print the version
    Version,
    /// Check from inside the cluster that the controller works and has its rights
    Selftest {
        /// Run with the Pod's own identity, as `helm test` does
        #[arg(long)]
        in_cluster: bool,
    },
}

/// Runs what the command line asks for.
pub async fn main() -> ExitCode {
    let cli: Cli = cli::parse(&COMPONENT);
    match &cli.command {
        None => serve(&cli).await,
        Some(Command::Version) => {
            println!("{}", version::line(&COMPONENT));
            ExitCode::SUCCESS
        }
        Some(Command::Selftest { in_cluster: _ }) => match connect(&cli.common).await {
            Ok(client) => check(&client, &cli.common).await,
            Err(code) => code,
        },
    }
}

/// Why the controller cannot start; exit code 2.
fn unusable(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("{}: {error}", COMPONENT.name);
    ExitCode::from(2)
}

async fn serve(cli: &Cli) -> ExitCode {
    // Before anything else: a CA file that cannot be used is a mistake in the settings.
    let ca = match cli.own.mlflow_ca_file.as_deref().filter(|path| !path.as_os_str().is_empty()) {
        None => None,
        Some(path) => match CaFile::load(path) {
            Ok(ca) => Some(ca),
            Err(error) => return unusable(&error),
        },
    };
    let process = match Process::start(&COMPONENT, &cli.common).await {
        Ok(process) => process,
        Err(error) => return error.report(&COMPONENT),
    };
    if cli.own.enable_mlflow {
        if let Err(error) = control(&process, &cli.own, ca) {
            return unusable(&error);
        }
    } else {
        tracing::info!("--enable-mlflow is false: nothing is watched and nothing is changed");
    }
    process.run().await
}

fn control(process: &Process, settings: &Settings, ca: Option<CaFile>) -> Result<(), StartError> {
    let servers = Arc::new(ServerWatch::register(process.metrics()));
    let tracking = Tracking::new(settings, ca, servers.clone())?;
    let http = tracking.http();
    let ctx = Arc::new(Context::new(Parts {
        client: process.client(),
        settings: settings.clone(),
        operator_namespace: process.operator_namespace(),
        scope: process.scope().clone(),
        metrics: process.metrics(),
        events: &process.events(),
        leadership: process.leadership(),
        tracking,
        servers,
        clock: Timestamp::now,
    }));
    watches::start(process, &ctx);
    let stop = process.stop();
    process.spawn("ca file", async move {
        stop.run_until_cancelled(http.watch_ca(CA_POLL)).await;
        Ok(())
    });
    let (workers, stop) = (process.concurrency(), process.stop());
    process.spawn("workers", async move {
        work::run(ctx, workers, stop).await;
        Ok(())
    });
    Ok(())
}

/// A client for the sub-commands, which are no long-lived processes.
async fn connect(args: &CommonArgs) -> Result<Client, ExitCode> {
    let metrics = Metrics::new(COMPONENT.name);
    let config = client::config(args.kubeconfig.as_deref()).await;
    let made = match config {
        Ok(config) => client::client(&COMPONENT, args, config, &metrics),
        Err(error) => Err(error),
    };
    made.map(|(client, _)| client).map_err(|error| unusable(&error))
}

/// Rights the controller cannot do without (MLflow §11).
const RIGHTS: [(&str, &str, &str); 10] = [
    ("apps", "deployments", "watch"),
    ("apps", "deployments", "patch"),
    ("apps", "statefulsets", "patch"),
    ("rbac.authorization.k8s.io", "roles", "create"),
    ("rbac.authorization.k8s.io", "rolebindings", "create"),
    ("rbac.authorization.k8s.io", "rolebindings", "delete"),
    ("mlflow.kubeflow.org", "experiments", "update"),
    ("agent.kagenti.dev", "agentruntimes/status", "patch"),
    ("", "configmaps", "watch"),
    ("events.k8s.io", "events", "create"),
];

async fn check(client: &Client, args: &CommonArgs) -> ExitCode {
    let mut test = Selftest::new();
    test.check("api server", selftest::api_server(client)).await;
    let scopes: Vec<Option<&str>> = match &args.watch_namespaces {
        Scope::Cluster => vec![None],
        Scope::Namespaces(names) => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    let rights: Vec<_> = scopes
        .into_iter()
        .flat_map(|namespace| {
            RIGHTS.map(|(group, resource, verb)| Right { group, resource, verb, namespace })
        })
        .collect();
    test.check("rights", selftest::rights(client, &rights)).await;
    if args.leader_elect {
        let namespace = args.pod_namespace.as_deref().unwrap_or(api_types::names::DEFAULT_OPERATOR_NAMESPACE);
        let lease = format!("{}.kagenti.dev{}", COMPONENT.name, args.watch_namespaces.lease_suffix());
        test.check("lease", selftest::lease_is_alive(client, namespace, &lease)).await;
    }
    test.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// MLflow §3: flags of the previous operator are understood, also those without effect.
    #[test]
    fn flags_of_the_previous_operator() {
        let args = [
            "mlflow-ctl",
            "--enable-mlflow=true",
            "--mlflow-ca-file=/ca.crt",
            "--mlflow-workspace=w",
            "--mlflow-experiment-name=x",
        ];
        let cli: Cli = cli::try_parse_from(&COMPONENT, args).unwrap();
        assert!(cli.own.enable_mlflow && cli.own.mlflow_ca_file.is_some());
    }
}
