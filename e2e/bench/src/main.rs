//! Measures what users feel and what operators pay for: `cargo bench-suite` (or `just bench`).

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

/// Measures the suite on a real control plane of its own. Figures of one machine compare with each other only.
#[derive(Parser)]
#[command(name = "bench-suite")]
struct Cli {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// Enrol many Deployments at once: time, requests, CPU, memory, admission latency.
    Enrol {
        /// How many Deployments.
        #[arg(long, default_value_t = 1_000)]
        count: usize,
    },
    /// Send AdmissionReviews straight to the webhook.
    Admission {
        /// Requests per second.
        #[arg(long, default_value_t = 1_000)]
        rate: u32,
        /// Seconds.
        #[arg(long, default_value_t = 20)]
        seconds: u32,
    },
    /// Hold many enrolled workloads: memory, writes while idle, restart.
    Idle {
        /// How many workloads.
        #[arg(long, default_value_t = 10_000)]
        count: usize,
    },
    /// Install the charts with Helm on a real node: time to the first injected Pod, then CPU and memory of the idle suite.
    /// Needs root; takes images from the directory KAGENTI_IMAGES, or builds them for release.
    Install {
        /// Seconds of idleness, at least 60.
        #[arg(long, default_value_t = 120)]
        seconds: u64,
    },
    /// Isolate many agents: all their policies from nothing, then the way from a verdict to its policy.
    Netpol {
        /// How many workloads.
        #[arg(long, default_value_t = 2_000)]
        count: usize,
    },
    /// Keep many agent cards up to date: cost, writes, memory, and what agents that fall silent do to the others.
    Cards {
        /// How many agents.
        #[arg(long, default_value_t = 5_000)]
        count: usize,
        /// How many of them fall silent.
        #[arg(long, default_value_t = 200)]
        dead: usize,
    },
    /// Register many agents in a real Keycloak: time, requests, CPU, memory; then again with Keycloak stopped for a
    /// minute in the middle. Needs Java.
    Registration {
        /// How many agents.
        #[arg(long, default_value_t = 500)]
        count: usize,
        /// Another --keycloak-qps of the component.
        #[arg(long)]
        keycloak_qps: Option<u32>,
        /// One of the two only.
        #[arg(long, value_enum)]
        only: Option<Form>,
    },
    /// Give many agents an experiment in a real MLflow, without and with workspaces. Needs Python.
    Tracking {
        /// How many agents.
        #[arg(long, default_value_t = 500)]
        count: usize,
    },
    /// Verify signed cards on one core, beside OpenSSL alone. Needs no cluster.
    Verify {
        /// Seconds for each algorithm and side.
        #[arg(long, default_value_t = 3)]
        seconds: u32,
    },
}

/// What `registration` measures.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Keycloak answers.
    Calm,
    /// Keycloak is stopped in the middle.
    Outage,
}

async fn registration(count: usize, qps: Option<u32>, only: Option<Form>) -> Result<bool> {
    let mut kept = true;
    if only != Some(Form::Outage) {
        kept &= bench::registration::run(count, qps).await?;
    }
    if only != Some(Form::Calm) {
        kept &= bench::registration::outage(count, qps).await?;
    }
    Ok(kept)
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let kept = match Cli::parse().what {
        Some(What::Enrol { count }) => bench::enrol::run(count).await?,
        Some(What::Admission { rate, seconds }) => bench::admission::run(&[rate], seconds).await?,
        Some(What::Idle { count }) => bench::idle::run(count).await?,
        Some(What::Install { seconds }) => bench::install::run(seconds).await?,
        Some(What::Netpol { count }) => bench::netpol::run(count).await?,
        Some(What::Cards { count, dead }) => bench::cards::run(count, dead).await?,
        Some(What::Registration { count, keycloak_qps, only }) => {
            registration(count, keycloak_qps, only).await?
        }
        Some(What::Tracking { count }) => bench::tracking::run(count).await?,
        Some(What::Verify { seconds }) => bench::verify::run(seconds)?,
        None => {
            let mut kept = bench::enrol::run(200).await?;
            kept &= bench::enrol::run(1_000).await?;
            kept &= bench::admission::run(&[200, 1_000], 20).await?;
            kept &= bench::netpol::run(2_000).await?;
            kept &= bench::cards::run(5_000, 200).await?;
            kept &= registration(500, None, None).await?;
            kept &= bench::tracking::run(500).await?;
            kept &= bench::verify::run(3)?;
            kept & bench::idle::run(10_000).await?
        }
    };
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
