//! The process: command line, sub-commands, and the tasks of the controller.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Subcommand;
use controller_kit::{
    cli,
    commands::CommonCommand,
    controller::{Handles, workers},
    process::Process,
    scope::Scope,
    selftest::Right,
};
use jiff::Timestamp;

use crate::{
    context::Context,
    discovery,
    settings::{COMPONENT, Settings},
    sweep, watches,
};

/// How often the CA file is looked at.
const CA_POLL: Duration = Duration::from_secs(10);
/// How long the first passes wait for what they decide by.
const PATIENCE: Duration = Duration::from_secs(30);

/// The command line.
pub type Cli = cli::Cli<Settings, Command>;

/// Sub-commands (packaging §12).
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Those of every controller.
    #[command(flatten)]
    Common(CommonCommand),
}

/// Rights the controller cannot do without (client-registration §16).
const RIGHTS: [(&str, &str, &str); 11] = [
    ("agent.kagenti.dev", "agentruntimes", "watch"),
    ("agent.kagenti.dev", "agentruntimes/status", "patch"),
    ("apps", "deployments", "watch"),
    ("apps", "deployments", "patch"),
    ("apps", "statefulsets", "patch"),
    ("", "secrets", "create"),
    ("", "secrets", "patch"),
    ("", "secrets", "delete"),
    ("", "configmaps", "watch"),
    ("", "pods", "list"),
    ("events.k8s.io", "events", "create"),
];

/// Runs what the command line asks for.
pub async fn main() -> ExitCode {
    let cli: Cli = cli::parse(&COMPONENT);
    match &cli.command {
        None => serve(&cli).await,
        Some(Command::Common(command)) => command.run(&COMPONENT, &cli.common, &rights(&cli)).await,
    }
}

fn rights(cli: &Cli) -> Vec<Right<'_>> {
    let scopes: Vec<Option<&str>> = match &cli.common.watch_namespaces {
        Scope::Cluster => vec![None],
        Scope::Namespaces(names) => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    scopes
        .into_iter()
        .flat_map(|namespace| {
            RIGHTS.map(|(group, resource, verb)| Right { group, resource, verb, namespace })
        })
        .collect()
}

async fn serve(cli: &Cli) -> ExitCode {
    if let Err(error) = cli.own.check() {
        eprintln!("{}: {error}", COMPONENT.name);
        return ExitCode::from(2);
    }
    let process = match Process::start(&COMPONENT, &cli.common).await {
        Ok(process) => process,
        Err(error) => return error.report(&COMPONENT),
    };
    let handles = Handles {
        client: process.client(),
        operator_namespace: process.operator_namespace().to_owned(),
        scope: process.scope().clone(),
        metrics: process.metrics().clone(),
        readiness: process.readiness(),
        events: process.events(),
        leadership: process.leadership(),
        clock: Timestamp::now,
    };
    let (ctx, attendants) = match Context::new(handles, cli.own.clone()) {
        Ok(made) => made,
        Err(error) => {
            eprintln!("{}: {error}", COMPONENT.name);
            return ExitCode::from(2);
        }
    };
    let ctx = Arc::new(ctx);
    watches::start(&process, &ctx);
    let task = |name: &'static str, work: futures::future::BoxFuture<'static, ()>| {
        let stop = process.stop();
        process.spawn(name, async move {
            stop.run_until_cancelled(work).await;
            Ok(())
        });
    };
    let with = |run: fn(Arc<Context>) -> futures::future::BoxFuture<'static, ()>| run(ctx.clone());
    task("close sessions", Box::pin(attendants.closer.run()));
    task("CA file", with(|ctx| Box::pin(async move { ctx.rest.watch_ca(CA_POLL).await })));
    task("sweep", with(|ctx| Box::pin(async move { sweep::run(&ctx).await })));
    task("recoveries", with(|ctx| Box::pin(async move { sweep::recoveries(&ctx).await })));
    if ctx.settings.keycloak_public_url.is_empty() {
        task("public URL", with(|ctx| Box::pin(async move { discovery::public_url(&ctx).await })));
    }
    if ctx.settings.spire_trust_domain.is_empty() {
        task("trust domain", with(|ctx| Box::pin(async move { discovery::trust_domain(&ctx).await })));
    }
    if ctx.cluster_id().is_none() {
        task("cluster id", with(|ctx| Box::pin(async move { discovery::cluster_id(&ctx).await })));
    }
    let (number, stop) = (process.concurrency(), process.stop());
    process.spawn("workers", async move {
        if ctx.watches_settled(&stop).await
            && stop.run_until_cancelled(ctx.around.settled(PATIENCE)).await.is_some()
        {
            workers(&ctx, number, &stop).await;
        }
        Ok(())
    });
    process.run().await
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
