//! The process: command line, sub-commands, and the tasks of the controller.

use std::{process::ExitCode, sync::Arc, time::Duration};

use controller_kit::{
    cli,
    commands::CommonCommand,
    controller::workers,
    process::{self, Process},
};

use crate::{
    context::{Context, Prepared},
    discovery,
    settings::{COMPONENT, Settings},
    sweep, watches,
};

/// How often the CA file is looked at.
const CA_POLL: Duration = Duration::from_secs(10);
/// How long the first passes wait for what they decide by.
const PATIENCE: Duration = Duration::from_secs(30);

/// The command line.
pub type Cli = cli::Cli<Settings, CommonCommand>;

/// Runs what the command line asks for.
pub async fn main() -> ExitCode {
    let cli: Cli = cli::parse(&COMPONENT);
    let args = &cli.common;
    match &cli.command {
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
        {
            tracing::info!(workloads = ctx.index.workloads.len(), "watches have delivered");
            workers(&ctx, number, &stop).await;
        }
    });
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
