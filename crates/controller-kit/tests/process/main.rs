//! Whole processes: flags, ports, signals, exit codes (packaging §11, §12).
//!
//! The test binary starts itself as the process under test. Every case has its own API server.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that stops here has failed"
)]

mod cases;
mod child;
mod kubernetes;
mod running;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os(running::CHILD).is_some() {
        return child::main();
    }
    // What libtest would do with a filter; other arguments (`--nocapture`) have no meaning here.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let failed = runtime.block_on(cases::run(filter.as_deref()));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
