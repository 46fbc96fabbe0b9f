//! The process: command line, sub-commands, and the tasks of the controller.

use std::{process::ExitCode, sync::Arc, time::Duration};

use controller_kit::{
    cli,
    commands::CommonCommand,
    process::{self, Process},
};
use rest_client::ca::CaFile;

use crate::{
    context::Context,
    metrics::ServerWatch,
    settings::{COMPONENT, Settings},
    tracking::Tracking,
    watches, work,
};

/// How often the CA file is looked at.
const CA_POLL: Duration = Duration::from_secs(10);

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

/// Why the controller cannot start; exit code 2.
fn unusable(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("{}: {error}", COMPONENT.name);
    ExitCode::from(2)
}

async fn serve(cli: &Cli) -> ExitCode {
    let settings = &cli.own;
    // Before anything else: a CA file that cannot be used is a mistake in the settings.
    let ca = match settings.mlflow_ca_file.as_deref().filter(|path| !path.as_os_str().is_empty()) {
        None => None,
        Some(path) => match CaFile::load(path) {
            Ok(ca) => Some(ca),
            Err(error) => return unusable(&error),
        },
    };
    let servers = Arc::new(ServerWatch::default());
    let tracking = match Tracking::new(settings, ca, servers.clone()) {
        Ok(tracking) => tracking,
        Err(error) => return unusable(&error),
    };
    process::serve(&COMPONENT, &cli.common, |process| {
        if settings.enable_mlflow {
            control(process, settings, tracking, servers);
        } else {
            tracing::info!("--enable-mlflow is false: nothing is watched and nothing is changed");
        }
    })
    .await
}

fn control(process: &Process, settings: &Settings, tracking: Tracking, servers: Arc<ServerWatch>) {
    let http = tracking.http();
    let ctx = Arc::new(Context::new(process.handles(), settings.clone(), tracking, servers));
    watches::start(process, &ctx);
    process.spawn_endless("ca file", async move { http.watch_ca(CA_POLL).await });
    let workers = process.concurrency();
    process.spawn_until_stop("workers", |stop| work::run(ctx, workers, stop));
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
