//! The signer as a library and as a program, in what a Pod gives it.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test that stops here has failed")]

mod once;
mod pod;
mod process;
mod watch;
