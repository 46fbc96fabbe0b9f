//! `card-ctl verify` and `card-ctl canonicalize`: the same decisions as the controller's, on files, without a cluster.

mod canonicalize;
mod input;
mod report;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use canonicalize::{CanonicalizeArgs, canonicalize};
pub use verify::{Output, VerifyArgs, verify};

/// Exit code of an input that cannot be judged.
const BAD_INPUT: u8 = 2;

/// Judges agent cards offline.
#[derive(Parser, Debug)]
#[command(name = "card-ctl", version)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Say whether a card file is signed by a workload that a trust bundle vouches for
    ///
    /// Exits 0 when it is, 1 when it is not, 2 when an input cannot be read.
    Verify(VerifyArgs),
    /// Print the exact bytes that a signature of a profile covers
    Canonicalize(CanonicalizeArgs),
}

/// Runs the sub-command that `args` (program name first) ask for. `None`: they ask for none, so the controller starts.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let args: Vec<OsString> = args.into_iter().collect();
    let first = args.get(1).and_then(|word| word.to_str());
    if !matches!(first, Some("verify" | "canonicalize")) {
        return None;
    }
    // Help and errors go where clap puts them; a bad flag exits 2, which is also the code of bad input.
    Some(match Cli::try_parse_from(args) {
        Ok(Cli { what: What::Verify(args) }) => verify(&args),
        Ok(Cli { what: What::Canonicalize(args) }) => canonicalize(&args),
        Err(error) => {
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(BAD_INPUT))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(args: &[&str]) -> bool {
        run(args.iter().map(OsString::from)).is_some()
    }

    #[test]
    fn flags_of_the_controller_are_left_alone() {
        assert!(!asks(&["card-ctl"]));
        assert!(!asks(&["card-ctl", "--require-a2a-signature"]));
        assert!(asks(&["card-ctl", "verify", "--help"]));
        assert!(asks(&["card-ctl", "canonicalize"]));
    }
}
