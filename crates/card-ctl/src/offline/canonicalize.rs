//! `card-ctl canonicalize`: the bytes that a signature covers (card §8.2).

use std::path::PathBuf;
use std::process::ExitCode;

use agent_trust::card::MAX_CARD_BYTES;
use agent_trust::profile::payload;
use agent_trust::{Card, Profile};
use clap::Args;

use super::input;

/// Flags of `card-ctl canonicalize`.
#[derive(Args, Clone, Debug)]
pub struct CanonicalizeArgs {
    /// Which payload: legacy, a2a, a2a-strict or jcs
    #[arg(long)]
    pub profile: Profile,

    /// File with the card, a SignedAgentCard envelope is taken off; `-` reads standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Prints the payload, nothing before or after it. Exits 2 when the file is not a card.
pub fn canonicalize(args: &CanonicalizeArgs) -> ExitCode {
    let card = input::read(&args.file, MAX_CARD_BYTES)
        .and_then(|bytes| Card::read(&bytes).map_err(|error| format!("{}: {error}", args.file.display())));
    match card {
        Ok(card) => {
            input::print(&payload(card.value(), args.profile));
            ExitCode::SUCCESS
        }
        Err(message) => input::refuse(&message),
    }
}
