//! See the library.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    agentcard_signer::main(std::env::args().skip(1), |name| std::env::var(name).ok()).await
}
