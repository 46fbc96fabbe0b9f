//! The process: command line, sub-commands, and the tasks of a controller.

use std::{process::ExitCode, sync::Arc};

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

use crate::{
    context::Context,
    crds,
    settings::{COMPONENT, Settings},
    watches, work,
};

/// The command line.
#[derive(Clone, Debug, Parser)]
// 1,000 enrolments at once are 3,000 requests until they are Ready. The common limit of 100 per second would make that
// 28 s, close to the 30 s we promise; a higher one makes a small API server answer everyone later, admission first
// (measured: docs/performance.md). No large burst, for the same reason.
#[command(
    mut_arg("kube_qps", |arg| arg.default_value("150")),
    mut_arg("kube_burst", |arg| arg.default_value("50"))
)]
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
    /// The CustomResourceDefinitions of the suite
    Crds {
        /// What to do.
        #[command(subcommand)]
        command: crds::Command,
    },
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
        Some(Command::Crds { command: crds::Command::Print(groups) }) => {
            print!("{}", crds::print(&groups.groups));
            ExitCode::SUCCESS
        }
        Some(Command::Crds { command: crds::Command::Apply(apply) }) => match connect(&cli.common).await {
            Ok(client) => match crds::apply(&client, &apply.groups.groups, apply.allow_downgrade).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{}: {error}", COMPONENT.name);
                    error.exit_code()
                }
            },
            Err(code) => code,
        },
        Some(Command::Selftest { in_cluster: _ }) => match connect(&cli.common).await {
            Ok(client) => check(&client, &cli.common).await,
            Err(code) => code,
        },
    }
}

async fn serve(cli: &Cli) -> ExitCode {
    let process = match Process::start(&COMPONENT, &cli.common).await {
        Ok(process) => process,
        Err(error) => return error.report(&COMPONENT),
    };
    let ctx = Arc::new(Context::new(
        process.client(),
        cli.own.clone(),
        process.operator_namespace(),
        process.scope().clone(),
        process.metrics(),
        &process.events(),
        process.leadership(),
        Timestamp::now,
    ));
    watches::start(&process, &ctx);
    let (workers, stop) = (process.concurrency(), process.stop());
    process.spawn("workers", async move {
        work::run(ctx, workers, stop).await;
        Ok(())
    });
    process.run().await
}

/// A client for the sub-commands, which are no long-lived processes.
async fn connect(args: &CommonArgs) -> Result<Client, ExitCode> {
    let metrics = Metrics::new(COMPONENT.name);
    let config = client::config(args.kubeconfig.as_deref()).await;
    let made = match config {
        Ok(config) => client::client(&COMPONENT, args, config, &metrics),
        Err(error) => Err(error),
    };
    made.map(|(client, _)| client).map_err(|error| {
        eprintln!("{}: {error}", COMPONENT.name);
        ExitCode::from(2)
    })
}

/// Rights the controller cannot do without (runtime §19.3).
const RIGHTS: [(&str, &str, &str); 9] = [
    ("agent.kagenti.dev", "agentruntimes", "watch"),
    ("agent.kagenti.dev", "agentruntimes", "patch"),
    ("agent.kagenti.dev", "agentruntimes/status", "patch"),
    ("apps", "deployments", "watch"),
    ("apps", "deployments", "patch"),
    ("apps", "statefulsets", "patch"),
    ("", "configmaps", "watch"),
    ("", "pods", "watch"),
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

    /// Packaging §12: the sub-commands take no flags of the controller by accident.
    #[test]
    fn crds_apply_takes_groups() {
        let args = ["runtime-ctl", "crds", "apply", "--groups", "agent", "--allow-downgrade"];
        let cli: Cli = cli::try_parse_from(&COMPONENT, args).unwrap();
        assert!(
            matches!(cli.command, Some(Command::Crds { command: crds::Command::Apply(apply) }) if apply.allow_downgrade)
        );
        let args = ["runtime-ctl", "crds", "apply", "--groups", "kagent"];
        assert!(cli::try_parse_from::<Cli, _, _>(&COMPONENT, args).is_err());
    }
}
