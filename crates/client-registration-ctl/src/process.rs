//! The process: command line, sub-commands, and the tasks of the controller.

use std::{process::ExitCode, sync::Arc, time::Duration};

use controller_kit::{
    cli::{self, CommonArgs},
    commands::{CommonCommand, connect, operator_namespace},
    controller::workers,
    process::{self, Process},
    retire,
};

use api_types::registration::MANAGER;

use crate::{
    cleanup,
    context::{Context, Prepared},
    discovery,
    settings::{COMPONENT, Settings},
    sweep, watches,
};

/// How often the CA file is looked at.
const CA_POLL: Duration = Duration::from_secs(10);
/// How long the first passes wait for what they decide by.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long `--cleanup-and-exit` tries.
const EXIT_WITHIN: Duration = Duration::from_secs(120);
/// How long a running process has to show itself where there is no Lease to take from it.
const SETTLED: Duration = Duration::from_secs(5);
/// The pause between its tries.
const AGAIN: Duration = Duration::from_secs(2);

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
    let prepared = match Prepared::new(cli.own.clone()) {
        Ok(prepared) => prepared,
        Err(error) => {
            eprintln!("{}: {error}", COMPONENT.name);
            return ExitCode::from(2);
        }
    };
    process::serve(&COMPONENT, &cli.common, |process| start(process, prepared)).await
}

fn start(process: &Process, prepared: Prepared) {
    let (ctx, closer) = Context::new(process.handles(), prepared);
    let ctx = Arc::new(ctx);
    watches::start(process, &ctx);
    process.spawn_endless("close sessions", closer.run());
    let rest = ctx.rest.clone();
    process.spawn_endless("CA file", async move { rest.watch_ca(CA_POLL).await });
    process.spawn_endless("sweep", sweep::run(ctx.clone()));
    process.spawn_endless("recoveries", sweep::recoveries(ctx.clone()));
    if ctx.settings.keycloak_public_url.is_empty() {
        process.spawn_endless("public URL", discovery::public_url(ctx.clone()));
    }
    if ctx.settings.spire_trust_domain.is_empty() {
        process.spawn_endless("trust domain", discovery::trust_domain(ctx.clone()));
    }
    // Nothing outside the watched namespaces is read (packaging §7); the flag is needed then.
    if ctx.cluster_id().is_none() && !ctx.scope.is_namespaced() {
        process.spawn_endless("cluster id", discovery::cluster_id(ctx.clone()));
    }
    let number = process.concurrency();
    process.spawn_until_stop("workers", |stop| async move {
        if ctx.watches_settled(&stop).await
            && stop.run_until_cancelled(ctx.around.settled(PATIENCE)).await.is_some()
            && stop.run_until_cancelled(discovery::settled(&ctx, PATIENCE)).await.is_some()
        {
            tracing::info!(workloads = ctx.index.workloads.len(), "watches have delivered");
            workers(&ctx, number, &stop).await;
        }
    });
}

/// `--cleanup-and-exit`: for the chart's hook, before the controller goes (packaging §15).
async fn clean_and_exit(args: &CommonArgs) -> ExitCode {
    let client = match connect(&COMPONENT, args).await {
        Ok(client) => client,
        Err(code) => return code,
    };
    let namespace = operator_namespace(args);
    let lease = COMPONENT.lease(&args.watch_namespaces);
    let mut trouble = String::new();
    let mut note = |text: String| {
        eprintln!("{}: {text}", COMPONENT.name);
        trouble = text;
    };
    let work = async {
        // Or the running controller would put the finalizers on again.
        if args.leader_elect {
            let renewal = args.leader_elect_retry_period;
            while let Err(text) = retire::take_over(&client, namespace, &lease, MANAGER, renewal).await {
                note(text);
                tokio::time::sleep(AGAIN).await;
            }
        }
        let stripping = async {
            let mut count = 0;
            loop {
                match strip(&client, args).await {
                    Ok((stripped, None)) => return count + stripped,
                    Ok((stripped, Some(text))) => {
                        count += stripped;
                        note(text);
                    }
                    Err(text) => note(text),
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        if args.leader_elect {
            retire::while_retired(&client, namespace, &lease, MANAGER, stripping).await
        } else {
            stripping.await
        }
    };
    if let Ok(count) = tokio::time::timeout(EXIT_WITHIN, work).await {
        println!("removed the finalizer from {count} Secrets; they stay, and so do the clients in Keycloak");
        ExitCode::SUCCESS
    } else {
        eprintln!("{}: not done within {EXIT_WITHIN:?}: {trouble}", COMPONENT.name);
        ExitCode::FAILURE
    }
}

/// One turn of the clean-up: how many Secrets lost the finalizer, and what speaks against its being over.
async fn strip(client: &kube::Client, args: &CommonArgs) -> Result<(usize, Option<String>), String> {
    let run = || cleanup::run(client, &args.watch_namespaces, usize::from(args.concurrency));
    let count = run().await?;
    if args.leader_elect {
        return Ok((count, None));
    }
    // Nobody can be sent away: whether somebody puts the finalizers on again shows a moment later.
    tokio::time::sleep(SETTLED).await;
    let again = run().await?;
    let back = (again > 0).then(|| {
        "a running client-registration-ctl without leader election puts the finalizer on again: scale its Deployment \
         to 0 first"
            .to_owned()
    });
    Ok((count + again, back))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
