//! See the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl_kagenti::cli::main()
}
