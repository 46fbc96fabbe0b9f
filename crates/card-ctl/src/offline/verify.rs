//! `card-ctl verify`: the verdict over a card file (card §8).

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use agent_trust::card::MAX_CARD_BYTES;
use agent_trust::verify::{LeafExpiry, Policy, verify as judge};
use agent_trust::{Card, TrustBundle, TrustDomain};
use clap::{Args, ValueEnum};
use controller_kit::cli::{duration, duration_or_zero};
use jiff::Timestamp;

use super::input::{self, MAX_BUNDLE_BYTES};
use super::report::Report;

/// How a verdict is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Flags of `card-ctl verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// File with the card; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub card: PathBuf,

    /// File with the trust bundle: PEM, a SPIFFE document, or a map of trust domain to such documents
    #[arg(long, value_name = "FILE")]
    pub trust_bundle: PathBuf,

    /// SPIFFE trust domain of the platform; authorities that name no trust domain count as its own
    #[arg(long)]
    pub trust_domain: TrustDomain,

    /// Judge as if it were this time (RFC 3339) instead of now
    #[arg(long, value_name = "TIME")]
    pub now: Option<Timestamp>,

    /// What an expired signing certificate means: grace, deny or ignore
    #[arg(long, default_value = "grace")]
    pub leaf_expiry_policy: LeafExpiry,

    /// How long an expired certificate stays good under `grace`
    #[arg(long, value_parser = duration_or_zero, default_value = "24h")]
    pub leaf_expiry_grace: Duration,

    /// How far clocks may differ
    #[arg(long, value_parser = duration, default_value = "5m")]
    pub clock_skew: Duration,

    /// How to print the verdict
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Prints the verdict. Exits 0 when the card is verified, 1 when it is not, 2 when an input cannot be read.
pub fn verify(args: &VerifyArgs) -> ExitCode {
    match report(args) {
        Ok(report) => {
            input::print(&report.print(args.output));
            if report.verified { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(message) => input::refuse(&message),
    }
}

fn report(args: &VerifyArgs) -> Result<Report, String> {
    let card = input::read(&args.card, MAX_CARD_BYTES)?;
    let card =
        Card::read(&card).map_err(|error| format!("{}: invalid_card: {error}", args.card.display()))?;
    let bundle = input::read(&args.trust_bundle, MAX_BUNDLE_BYTES)?;
    if bundle.len() > MAX_BUNDLE_BYTES {
        return Err(format!("{}: larger than {MAX_BUNDLE_BYTES} bytes", args.trust_bundle.display()));
    }
    let bundle = String::from_utf8(bundle)
        .map_err(|_| format!("{}: invalid_json: the text is not UTF-8", args.trust_bundle.display()))?;
    let bundle = TrustBundle::parse(&bundle, Some(&args.trust_domain))
        .map_err(|error| format!("{}: {}: {error}", args.trust_bundle.display(), error.label()))?;
    let policy =
        Policy { leaf_expiry: args.leaf_expiry_policy, grace: args.leaf_expiry_grace, skew: args.clock_skew };
    let verdict = judge(&card, &bundle, &policy, args.now.unwrap_or_else(Timestamp::now));
    Ok(Report::new(&verdict, &args.trust_domain))
}
