//! The process under test: the kit and one task.

use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use controller_kit::cli::{self, Component, Requests};
use controller_kit::process::Process;
use controller_kit::version;

pub(crate) const COMPONENT: Component =
    Component { name: "test-ctl", about: "Does nothing, well", requests: Requests::COMMON };

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Mode {
    /// Waits for its end.
    Idle,
    /// Takes some seconds to end, so that there is time to look at it.
    Slow,
    /// Never ends by itself.
    Stuck,
    /// Panics.
    Panic,
}

#[derive(Clone, Debug, clap::Args)]
struct Settings {
    /// What the one task does.
    #[arg(long, value_enum, default_value = "idle")]
    mode: Mode,
    /// How long it goes on after it was told to stop.
    #[arg(long, default_value_t = 0)]
    shutdown_delay_seconds: u64,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Prints the version.
    Version,
    /// Prints the settings.
    Show,
}

#[tokio::main]
pub(crate) async fn main() -> ExitCode {
    let cli: cli::Cli<Settings, Command> = cli::parse(&COMPONENT);
    match cli.command {
        Some(Command::Version) => {
            println!("{}", version::line(&COMPONENT));
            return ExitCode::SUCCESS;
        }
        Some(Command::Show) => {
            println!("{:?} {:?}", cli.common, cli.own.mode);
            return ExitCode::SUCCESS;
        }
        None => {}
    }
    let mut process = match Process::start(&COMPONENT, &cli.common).await {
        Ok(process) => process,
        Err(error) => return error.report(&COMPONENT),
    };
    process.set_shutdown_delay(Duration::from_secs(cli.own.shutdown_delay_seconds));
    let (stop, leadership) = (process.stop(), process.leadership());
    let mode = cli.own.mode;
    process.spawn("work", async move {
        let led = stop.run_until_cancelled(leadership.wait_until_leader()).await.is_some();
        if led {
            let _span = tracing::info_span!("work").entered();
            tracing::info!("leading");
        }
        match mode {
            Mode::Idle => stop.cancelled().await,
            Mode::Slow => {
                stop.cancelled().await;
                tokio::time::sleep(Duration::from_secs(3)).await;
                tracing::info!("work finished");
            }
            Mode::Stuck => std::future::pending().await,
            Mode::Panic => panic!("made to"),
        }
        Ok(())
    });
    process.run().await
}
