//! The process: command line, sub-commands, and the tasks of a controller.

use std::{process::ExitCode, sync::Arc};

use clap::Subcommand;
use controller_kit::{
    cli::{self, CommonArgs},
    commands::{CommonCommand, connect, operator_namespace},
    process,
};

use crate::{
    context::Context,
    crds,
    settings::{COMPONENT, Settings},
    unenroll, watches, work,
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
    /// Delete every AgentRuntime and wait until the workloads are released
    Unenroll(unenroll::Options),
}

/// Runs what the command line asks for.
pub async fn main() -> ExitCode {
    let cli: Cli = cli::parse(&COMPONENT);
    let args = &cli.common;
    match &cli.command {
        None => serve(&cli).await,
        Some(Command::Common(command)) => command.run(&COMPONENT, args).await,
        Some(Command::Crds { command }) => definitions(args, command).await,
        Some(Command::Unenroll(options)) => unenroll(args, options).await,
    }
}

async fn definitions(args: &CommonArgs, command: &crds::Command) -> ExitCode {
    if let crds::Command::Print(groups) = command {
        print!("{}", crds::print(&groups.groups));
        return ExitCode::SUCCESS;
    }
    let client = match connect(&COMPONENT, args).await {
        Ok(client) => client,
        Err(code) => return code,
    };
    let done = match command {
        crds::Command::Print(_) => Ok(()),
        crds::Command::Apply(apply) => {
            crds::apply(&client, &apply.groups.groups, apply.allow_downgrade).await
        }
        crds::Command::Delete(delete) => crds::delete(&client, &delete.groups.groups, delete.timeout).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", COMPONENT.name);
            error.exit_code()
        }
    }
}

/// Before an uninstall: the list of what is stuck goes to the log, and its end is what a failed container is shown with.
async fn unenroll(args: &CommonArgs, options: &unenroll::Options) -> ExitCode {
    let client = match connect(&COMPONENT, args).await {
        Ok(client) => client,
        Err(code) => return code,
    };
    let (scope, home) = (&args.watch_namespaces, operator_namespace(args));
    let concurrency = usize::from(args.concurrency);
    let say = |text: &str| println!("{text}");
    match unenroll::run(&client, scope, home, concurrency, options.timeout, say).await {
        Ok(count) => {
            println!("{count} AgentRuntimes are gone, their workloads are released");
            ExitCode::SUCCESS
        }
        Err(stuck) => {
            for line in &stuck.lines {
                eprintln!("{line}");
            }
            eprintln!("{}: {stuck}", COMPONENT.name);
            ExitCode::FAILURE
        }
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
        let args = ["runtime-ctl", "crds", "delete", "--timeout=1m"];
        let cli: Cli = cli::try_parse_from(&COMPONENT, args).unwrap();
        assert!(
            matches!(cli.command, Some(Command::Crds { command: crds::Command::Delete(delete) }) if delete.timeout.as_secs() == 60)
        );
        let args = ["runtime-ctl", "crds", "apply", "--groups", "kagent"];
        assert!(cli::try_parse_from::<Cli, _, _>(&COMPONENT, args).is_err());
    }
}
