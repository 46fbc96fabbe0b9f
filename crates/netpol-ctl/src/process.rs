//! The process: command line, sub-commands, and the tasks of a controller.

use std::{process::ExitCode, sync::Arc, time::Duration};

use controller_kit::{
    cli::{self, CommonArgs},
    commands::{CommonCommand, connect, operator_namespace},
    lease::Leadership,
    legacy_guard::LegacyGuard,
    process::{self, Process},
    readiness::Readiness,
    retire,
};

use crate::{
    cleanup,
    context::Context,
    naming::MANAGER,
    settings::{COMPONENT, Settings},
    watches, work,
};

/// Name of the readiness check of the clean-up.
const CLEANUP_CHECK: &str = "cleanup";
/// How long `--cleanup-and-exit` tries.
const EXIT_WITHIN: Duration = Duration::from_secs(120);

/// The command line.
pub type Cli = cli::Cli<Settings, CommonCommand>;

/// Runs what the command line asks for.
pub async fn main() -> ExitCode {
    let cli: Cli = cli::parse(&COMPONENT);
    let args = &cli.common;
    match &cli.command {
        None if cli.own.cleanup_and_exit => clean_and_exit(args).await,
        None => serve(&cli).await,
        Some(command) => command.run(&COMPONENT, args).await,
    }
}

async fn serve(cli: &Cli) -> ExitCode {
    let settings = &cli.own;
    process::serve(&COMPONENT, &cli.common, |process| {
        if settings.enforce_network_policies {
            enforce(process, settings);
        } else {
            idle(process, settings);
        }
    })
    .await
}

fn enforce(process: &Process, settings: &Settings) {
    let ctx = Arc::new(Context::new(process.handles(), settings.clone()));
    watches::start(process, &ctx);
    let workers = process.concurrency();
    process.spawn_until_stop("workers", |stop| work::run(ctx, workers, stop));
}

/// Enforcement is off: what was made under it goes once, then there is nothing to watch (card §15.5).
fn idle(process: &Process, settings: &Settings) {
    let readiness = process.readiness();
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
    process.spawn_endless("cleanup", async move {
        work.await;
        // A task that ends ends the process.
        std::future::pending::<()>().await;
    });
}

/// `--cleanup-and-exit`: for the chart's hooks, when the controller goes (packaging §15).
async fn clean_and_exit(args: &CommonArgs) -> ExitCode {
    let client = match connect(&COMPONENT, args).await {
        Ok(client) => client,
        Err(code) => return code,
    };
    let namespace = operator_namespace(args);
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
    let lease = COMPONENT.lease(&args.watch_namespaces);
    let work = async {
        if args.leader_elect {
            while let Err(text) =
                retire::take_over(&client, namespace, &lease, MANAGER, args.leader_elect_retry_period).await
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
        let deleting = cleanup::until_done(client.clone(), scope, true, concurrency, leadership, report);
        if args.leader_elect {
            retire::while_retired(&client, namespace, &lease, MANAGER, deleting).await;
        } else {
            deleting.await;
        }
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
