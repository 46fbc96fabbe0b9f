//! `card-ctl verify` and `card-ctl canonicalize`: the same decisions as the controller's, on files, without a cluster.

mod canonicalize;
mod input;
mod report;
mod verify;

pub use canonicalize::{CanonicalizeArgs, canonicalize};
pub use verify::{Output, VerifyArgs, verify};

/// Exit code of an input that cannot be judged.
const BAD_INPUT: u8 = 2;
