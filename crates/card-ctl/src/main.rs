//! See the library.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    if let Some(code) = card_ctl::offline::run(std::env::args_os()) {
        return code;
    }
    card_ctl::process::main().await
}
