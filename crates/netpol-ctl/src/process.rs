//! The process: command line, sub-commands, and the tasks of a controller.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::{Parser, Subcommand};
use controller_kit::{
    cli::{self, CommonArgs},
    client,
    lease::Leadership,
    legacy_guard::LegacyGuard,
    metrics::Metrics,
    process::Process,
    readiness::Readiness,
    scope::Scope,
    selftest::{self, Right, Selftest},
    version,
};
use jiff::Timestamp;
use kube::Client;

use crate::{
    cleanup,
    context::Context,
    retire,
    settings::{COMPONENT, Settings},
    watches, work,
};

/// Name of the readiness check of the clean-up.
const CLEANUP_CHECK: &str = "cleanup";
/// How long `--cleanup-and-exit` tries.
const EXIT_WITHIN: Duration = Duration::from_secs(120);

/// The command line.
#[derive(Clone, Debug, Parser)]
// A change of the trust bundle or of the API server's address is one of every policy: with the common limit of 100 per
// second 2,000 policies would take 20 s, and 20 s is the most we promise. The API server's own fairness protects it.
#[command(
    mut_arg("kube_qps", |arg| arg.default_value("500")),
    mut_arg("kube_burst", |arg| arg.default_value("1000"))
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
        None if cli.own.cleanup_and_exit => clean_and_exit(&cli.common).await,
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

async fn serve(cli: &Cli) -> ExitCode {
    let process = match Process::start(&COMPONENT, &cli.common).await {
        Ok(process) => process,
        Err(error) => return error.report(&COMPONENT),
    };
    if cli.own.enforce_network_policies {
        enforce(&process, &cli.own);
    } else {
        idle(&process, &cli.own);
    }
    process.run().await
}

fn enforce(process: &Process, settings: &Settings) {
    let ctx = Arc::new(Context::new(
        process.client(),
        settings.clone(),
        process.operator_namespace(),
        process.scope().clone(),
        process.metrics(),
        &process.events(),
        process.leadership(),
        Timestamp::now,
    ));
    watches::start(process, &ctx);
    let (workers, stop) = (process.concurrency(), process.stop());
    process.spawn("workers", async move {
        work::run(ctx, workers, stop).await;
        Ok(())
    });
}

/// Enforcement is off: what was made under it goes once, then there is nothing to watch (card §15.5).
fn idle(process: &Process, settings: &Settings) {
    let (readiness, stop) = (process.readiness(), process.stop());
    let policies = settings.cleanup_on_disable;
    let report = move |outcome: Result<cleanup::Done, &str>| match outcome {
        Ok(done) => {
            readiness.set_ok(CLEANUP_CHECK);
            tracing::info!(
                policies = done.policies,
                cards = done.cards,
                "enforcement is off: policies deleted and finalizers removed, nothing else to do"
            );
        }
        Err(text) => {
            readiness.set_degraded(CLEANUP_CHECK, text);
            tracing::warn!("enforcement is off, and what was made under it could not be removed: {text}");
        }
    };
    let work = cleanup::until_done(
        process.client(),
        process.scope().clone(),
        policies,
        process.concurrency(),
        process.leadership(),
        report,
    );
    process.spawn("cleanup", async move {
        if stop.run_until_cancelled(work).await.is_some() {
            // A task that ends ends the process.
            stop.cancelled().await;
        }
        Ok(())
    });
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

/// `--cleanup-and-exit`: for the chart's hooks, when the controller goes (packaging §15).
async fn clean_and_exit(args: &CommonArgs) -> ExitCode {
    let client = match connect(args).await {
        Ok(client) => client,
        Err(code) => return code,
    };
    let namespace = args.pod_namespace.as_deref().unwrap_or(api_types::names::DEFAULT_OPERATOR_NAMESPACE);
    let (guard, open) = LegacyGuard::new(client.clone(), namespace, Readiness::new());
    let guarding = tokio::spawn(guard.run());
    let trouble = std::sync::Mutex::new(format!(
        "Lease {namespace}/{} of the operator this suite replaces is renewed or cannot be read",
        api_types::names::LEGACY_LEASE
    ));
    let note = |text: &str| {
        eprintln!("{}: {text}", COMPONENT.name);
        text.clone_into(&mut trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    };
    let work = async {
        if args.leader_elect {
            let lease = lease_name(args);
            while let Err(text) =
                retire::take_over(&client, namespace, &lease, args.leader_elect_retry_period).await
            {
                note(&text);
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
        let leadership = Leadership::always().with_guard(open);
        let concurrency = usize::from(args.concurrency);
        let report = |outcome: Result<cleanup::Done, &str>| match outcome {
            Ok(done) => println!(
                "deleted {} NetworkPolicies, removed finalizers from {} AgentCards",
                done.policies, done.cards
            ),
            Err(text) => note(text),
        };
        let scope = args.watch_namespaces.clone();
        cleanup::until_done(client.clone(), scope, true, concurrency, leadership, report).await;
    };
    let ended = tokio::time::timeout(EXIT_WITHIN, work).await;
    guarding.abort();
    if ended.is_ok() {
        return ExitCode::SUCCESS;
    }
    let last = trouble.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    eprintln!("{}: not done within {EXIT_WITHIN:?}: {last}", COMPONENT.name);
    ExitCode::FAILURE
}

fn lease_name(args: &CommonArgs) -> String {
    format!("{}.kagenti.dev{}", COMPONENT.name, args.watch_namespaces.lease_suffix())
}

/// Rights the controller cannot do without (card §15.1).
const RIGHTS: [(&str, &str, &str); 9] = [
    ("agent.kagenti.dev", "agentcards", "watch"),
    ("agent.kagenti.dev", "agentcards", "patch"),
    ("networking.k8s.io", "networkpolicies", "watch"),
    ("networking.k8s.io", "networkpolicies", "create"),
    ("networking.k8s.io", "networkpolicies", "patch"),
    ("networking.k8s.io", "networkpolicies", "delete"),
    ("apps", "deployments", "watch"),
    ("apps", "statefulsets", "watch"),
    ("events.k8s.io", "events", "create"),
];

async fn check(client: &Client, args: &CommonArgs) -> ExitCode {
    let mut test = Selftest::new();
    test.check("api server", selftest::api_server(client)).await;
    let scopes: Vec<Option<&str>> = match &args.watch_namespaces {
        Scope::Cluster => vec![None],
        Scope::Namespaces(names) => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    let rights = scopes.iter().flat_map(|namespace| {
        RIGHTS.map(|(group, resource, verb)| Right { group, resource, verb, namespace: *namespace })
    });
    let endpoints = Right {
        group: "discovery.k8s.io",
        resource: "endpointslices",
        verb: "watch",
        namespace: Some(crate::api_server::NAMESPACE),
    };
    let everywhere = !args.watch_namespaces.is_namespaced();
    let rights: Vec<_> = rights.chain(everywhere.then_some(endpoints)).collect();
    test.check("rights", selftest::rights(client, &rights)).await;
    if args.leader_elect {
        let namespace = args.pod_namespace.as_deref().unwrap_or(api_types::names::DEFAULT_OPERATOR_NAMESPACE);
        test.check("lease", selftest::lease_is_alive(client, namespace, &lease_name(args))).await;
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

    /// Card §15.1: flags with the names of the previous operator, and their defaults.
    #[test]
    fn flags_of_the_chapter() {
        let cli: Cli = cli::try_parse_from(&COMPONENT, ["netpol-ctl", "--enforce-network-policies"]).unwrap();
        assert!(cli.own.enforce_network_policies && cli.own.cleanup_on_disable && !cli.own.cleanup_and_exit);
        let args = ["netpol-ctl", "--apiserver-cidrs=10.0.0.300/32"];
        let error = cli::try_parse_from::<Cli, _, _>(&COMPONENT, args).unwrap_err();
        assert!(error.to_string().contains("--apiserver-cidrs") && error.exit_code() == 2, "{error}");
        let args = ["netpol-ctl", "--initial-policy-delay=30s", "--verified-peers=cluster"];
        assert!(cli::try_parse_from::<Cli, _, _>(&COMPONENT, args).is_ok());
    }
}
