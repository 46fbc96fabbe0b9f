//! The process: command line, sub-commands, and the tasks of a controller.

use std::{process::ExitCode, sync::Arc};

use clap::Subcommand;
use controller_kit::{
    cli,
    commands::CommonCommand,
    process::{self, Process},
};
use spiffe_svid::{SvidFiles, SvidSource, WorkloadApi};

use crate::{
    context::Context,
    discovery, fetching,
    offline::{self, CanonicalizeArgs, VerifyArgs},
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
    /// Say whether a card file is signed by a workload that a trust bundle vouches for
    ///
    /// Exits 0 when it is, 1 when it is not, 2 when an input cannot be read.
    Verify(VerifyArgs),
    /// Print the exact bytes that a signature of a profile covers
    Canonicalize(CanonicalizeArgs),
}

/// Runs what the command line asks for.
pub async fn main() -> ExitCode {
    let cli: Cli = cli::parse(&COMPONENT);
    let args = &cli.common;
    match &cli.command {
        None => serve(&cli).await,
        Some(Command::Common(command)) => command.run(&COMPONENT, args).await,
        Some(Command::Verify(args)) => offline::verify(args),
        Some(Command::Canonicalize(args)) => offline::canonicalize(args),
    }
}

/// Where the own identity comes from.
fn svid_source(settings: &Settings) -> Result<Option<SvidSource>, String> {
    if !settings.enable_verified_fetch {
        return Ok(None);
    }
    if let (Some(cert), Some(key)) = (&settings.svid_cert_file, &settings.svid_key_file) {
        return Ok(Some(SvidSource::files(SvidFiles::new(cert, key, settings.svid_bundle_file.clone()))));
    }
    let api = WorkloadApi::new([&settings.verified_fetch_spiffe_socket])
        .map_err(|error| format!("--verified-fetch-spiffe-socket: {error}"))?;
    Ok(Some(SvidSource::workload_api(api)))
}

async fn serve(cli: &Cli) -> ExitCode {
    match cli.own.check().and_then(|()| svid_source(&cli.own)) {
        Ok(svids) => process::serve(&COMPONENT, &cli.common, |process| start(process, &cli.own, svids)).await,
        Err(error) => {
            eprintln!("{}: {error}", COMPONENT.name);
            ExitCode::from(2)
        }
    }
}

fn start(process: &Process, settings: &Settings, svids: Option<SvidSource>) {
    if !settings.require_a2a_signature && !settings.enable_verified_fetch {
        tracing::warn!(
            "neither --require-a2a-signature nor --enable-verified-fetch is on: no card can be verified, and no \
             identity can be bound"
        );
    }
    let (ctx, orders) = Context::new(process.handles(), settings.clone(), svids.clone());
    let ctx = Arc::new(ctx);
    watches::start(process, &ctx);
    let workers = process.concurrency();
    process.spawn_until_stop("workers", |stop| work::run(ctx.clone(), workers, stop));
    process.spawn_until_stop("fetches", |stop| fetching::run(ctx.clone(), orders, stop));
    if let Some(svids) = svids {
        let ctx = ctx.clone();
        process.spawn_until_stop("svids", |stop| async move {
            tokio::join!(svids.run(stop.clone()), stop.run_until_cancelled(discovery::svids(&ctx, &svids)));
        });
    }
    if ctx.settings.spire_trust_domain.is_empty() {
        let readiness = process.readiness();
        process.spawn_until_stop("trust domain", |stop| async move {
            stop.run_until_cancelled(discovery::trust_domain(&ctx, readiness)).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// The sub-commands on files take none of the controller's flags as their own.
    #[test]
    fn offline_sub_commands_are_there() {
        let args = ["card-ctl", "canonicalize", "--profile", "a2a", "-"];
        let cli: Cli = cli::try_parse_from(&COMPONENT, args).unwrap();
        assert!(matches!(cli.command, Some(Command::Canonicalize(_))));
        let args =
            ["card-ctl", "verify", "--card", "a", "--trust-bundle", "b", "--trust-domain", "example.org"];
        let cli: Cli = cli::try_parse_from(&COMPONENT, args).unwrap();
        assert!(matches!(cli.command, Some(Command::Verify(_))));
    }

    /// Card §13 is not built: a message says so, instead of a check that never happens.
    #[test]
    fn sigstore_flags_are_refused_with_a_reason() {
        for flag in
            ["--enable-sigstore-verification", "--sigstore-staging", "--sigstore-certificate-identity=x"]
        {
            let error = cli::try_parse_from::<Cli, _, _>(&COMPONENT, ["card-ctl", flag]).unwrap_err();
            assert!(error.to_string().contains("does not have"), "{error}");
        }
    }
}
