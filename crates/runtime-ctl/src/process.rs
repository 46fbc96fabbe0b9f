//! The process: command line, sub-commands, and the tasks of a controller.

use std::{process::ExitCode, sync::Arc};

use clap::Subcommand;
use controller_kit::{
    cli,
    commands::{CommonCommand, connect},
    process,
    selftest::everywhere,
};

use crate::{
    context::Context,
    crds,
    settings::{COMPONENT, Settings},
    watches, work,
};

/// The command line.
pub type Cli = cli::Cli<Settings, Command>;

/// Sub-commands (packaging §12).
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Those of every controller.
    #[command(flatten)]
    Common(CommonCommand),
    /// The CustomResourceDefinitions of the suite
    Crds {
        /// What to do.
        #[command(subcommand)]
        command: crds::Command,
    },
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

/// Runs what the command line asks for.
pub async fn main() -> ExitCode {
    let cli: Cli = cli::parse(&COMPONENT);
    let args = &cli.common;
    match &cli.command {
        None => serve(&cli).await,
        Some(Command::Common(command)) => {
            command.run(&COMPONENT, args, &everywhere(&RIGHTS, &args.watch_namespaces)).await
        }
        Some(Command::Crds { command: crds::Command::Print(groups) }) => {
            print!("{}", crds::print(&groups.groups));
            ExitCode::SUCCESS
        }
        Some(Command::Crds { command: crds::Command::Apply(apply) }) => match connect(&COMPONENT, args).await
        {
            Ok(client) => match crds::apply(&client, &apply.groups.groups, apply.allow_downgrade).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{}: {error}", COMPONENT.name);
                    error.exit_code()
                }
            },
            Err(code) => code,
        },
    }
}

async fn serve(cli: &Cli) -> ExitCode {
    process::serve(&COMPONENT, &cli.common, |process| {
        let ctx = Arc::new(Context::new(process.handles(), cli.own.clone()));
        watches::start(process, &ctx);
        let workers = process.concurrency();
        process.spawn_until_stop("workers", |stop| work::run(ctx, workers, stop));
    })
    .await
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
