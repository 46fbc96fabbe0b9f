//! The process: command line, sub-commands, and the tasks of a controller.

use std::{process::ExitCode, sync::Arc};

use clap::{Parser, Subcommand};
use controller_kit::{
    cli::{self, CommonArgs},
    client,
    metrics::Metrics,
    process::Process,
    scope::Scope,
    selftest::{self, Right, Selftest},
    version,
};
use jiff::Timestamp;
use kube::Client;
use spiffe_svid::{SvidFiles, SvidSource, WorkloadApi};

use crate::{
    context::Context,
    discovery, fetching,
    offline::{self, CanonicalizeArgs, VerifyArgs},
    settings::{COMPONENT, Settings},
    watches, work,
};

/// The command line.
#[derive(Clone, Debug, Parser)]
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
    /// Say whether a card file is signed by a workload that a trust bundle vouches for
    ///
    /// Exits 0 when it is, 1 when it is not, 2 when an input cannot be read.
    Verify(VerifyArgs),
    /// Print the exact bytes that a signature of a profile covers
    Canonicalize(CanonicalizeArgs),
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
        None => serve(&cli).await,
        Some(Command::Version) => {
            println!("{}", version::line(&COMPONENT));
            ExitCode::SUCCESS
        }
        Some(Command::Verify(args)) => offline::verify(args),
        Some(Command::Canonicalize(args)) => offline::canonicalize(args),
        Some(Command::Selftest { in_cluster: _ }) => match connect(&cli.common).await {
            Ok(client) => check(&client, &cli.common).await,
            Err(code) => code,
        },
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
    let svids = match cli.own.check().and_then(|()| svid_source(&cli.own)) {
        Ok(svids) => svids,
        Err(error) => {
            eprintln!("{}: {error}", COMPONENT.name);
            return ExitCode::from(2);
        }
    };
    let process = match Process::start(&COMPONENT, &cli.common).await {
        Ok(process) => process,
        Err(error) => return error.report(&COMPONENT),
    };
    if !cli.own.require_a2a_signature && !cli.own.enable_verified_fetch {
        tracing::warn!(
            "neither --require-a2a-signature nor --enable-verified-fetch is on: no card can be verified, and no \
             identity can be bound"
        );
    }
    let (ctx, orders) = Context::new(
        process.client(),
        cli.own.clone(),
        process.operator_namespace(),
        process.scope().clone(),
        process.metrics(),
        &process.events(),
        process.leadership(),
        svids.clone(),
        Timestamp::now,
    );
    let ctx = Arc::new(ctx);
    watches::start(&process, &ctx);
    let (workers, stop) = (process.concurrency(), process.stop());
    process.spawn("workers", {
        let ctx = ctx.clone();
        async move {
            work::run(ctx, workers, stop).await;
            Ok(())
        }
    });
    let stop = process.stop();
    process.spawn("fetches", {
        let ctx = ctx.clone();
        async move {
            fetching::run(ctx, orders, stop).await;
            Ok(())
        }
    });
    if let Some(svids) = svids {
        let stop = process.stop();
        process.spawn("svids", {
            let ctx = ctx.clone();
            async move {
                tokio::join!(
                    svids.run(stop.clone()),
                    stop.run_until_cancelled(discovery::svids(&ctx, &svids))
                );
                Ok(())
            }
        });
    }
    if ctx.settings.spire_trust_domain.is_empty() {
        let (stop, readiness) = (process.stop(), process.readiness());
        process.spawn("trust domain", async move {
            stop.run_until_cancelled(discovery::trust_domain(&ctx, readiness)).await;
            Ok(())
        });
    }
    process.run().await
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

/// Rights the controller cannot do without (card §4.2).
const RIGHTS: [(&str, &str, &str); 10] = [
    ("agent.kagenti.dev", "agentcards", "watch"),
    ("agent.kagenti.dev", "agentcards", "create"),
    ("agent.kagenti.dev", "agentcards/status", "patch"),
    ("agent.kagenti.dev", "agentruntimes/status", "patch"),
    ("apps", "deployments", "watch"),
    ("apps", "deployments", "patch"),
    ("apps", "statefulsets", "patch"),
    ("", "services", "watch"),
    ("", "configmaps", "watch"),
    ("events.k8s.io", "events", "create"),
];

async fn check(client: &Client, args: &CommonArgs) -> ExitCode {
    let mut test = Selftest::new();
    test.check("api server", selftest::api_server(client)).await;
    let scopes: Vec<Option<&str>> = match &args.watch_namespaces {
        Scope::Cluster => vec![None],
        Scope::Namespaces(names) => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    let rights: Vec<_> = scopes
        .into_iter()
        .flat_map(|namespace| {
            RIGHTS.map(|(group, resource, verb)| Right { group, resource, verb, namespace })
        })
        .collect();
    test.check("rights", selftest::rights(client, &rights)).await;
    if args.leader_elect {
        let namespace = args.pod_namespace.as_deref().unwrap_or(api_types::names::DEFAULT_OPERATOR_NAMESPACE);
        let lease = format!("{}.kagenti.dev{}", COMPONENT.name, args.watch_namespaces.lease_suffix());
        test.check("lease", selftest::lease_is_alive(client, namespace, &lease)).await;
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
