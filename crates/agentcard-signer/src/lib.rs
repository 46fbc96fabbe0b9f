//! Signs an agent card with the identity of the Pod it runs in (card §16).
//!
//! As init container it signs once and ends. As native sidecar (`SIGNER_MODE=watch`) it signs again whenever the
//! SVID is renewed or the card changes, so that nobody has to restart the agent for that. The signed card goes
//! into a file and, if the agent has a name, into the ConfigMap `<agent>-card-signed`.
//!
//! It must start fast and stay small: one thread, no Kubernetes client library.

mod check;
mod config_map;
mod http1;
mod input;
mod key;
mod kube_api;
mod log;
mod output;
mod run;
mod settings;

use std::process::ExitCode;

pub use config_map::{PublishError, Published, publish};
pub use http1::HttpError;
pub use kube_api::{ApiError, KubeApi};
pub use run::run;
pub use settings::{Mode, Settings, SettingsError};

/// Source revision, given to the build as `KAGENTI_REVISION`.
const REVISION: &str = match option_env!("KAGENTI_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

const USAGE: &str = "Usage: agentcard-signer [--check | version | --help]

Signs an agent card with the X.509-SVID of this Pod. Settings come from the environment:
SPIFFE_ENDPOINT_SOCKET, SVID_CERT_PATH, SVID_KEY_PATH, UNSIGNED_CARD_PATH, UNSIGNED_CARD_URL, AGENT_CARD_PATH,
SIGN_TIMEOUT, AGENT_NAME, POD_NAMESPACE, CARD_SIGNATURE_PROFILES, SIGNER_MODE.

  --check    exit 0 when the signed card exists and its certificate is valid now (for a startup probe)
  version    print version and source revision (also --version)
";

/// The whole process: 0 when what was asked for is done, else 1.
pub async fn main(
    mut arguments: impl Iterator<Item = String>,
    variable: impl Fn(&str) -> Option<String>,
) -> ExitCode {
    let argument = arguments.next();
    match argument.as_deref() {
        Some("version" | "--version") => {
            println!("agentcard-signer {} ({REVISION})", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some("--help" | "-h") => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    log::start();
    let settings = match Settings::from_variables(&variable) {
        Ok(settings) => settings,
        Err(error) => {
            tracing::error!(%error, "settings refused");
            return ExitCode::FAILURE;
        }
    };
    match (argument.as_deref(), arguments.next()) {
        (None, _) => run(&settings, || KubeApi::in_pod(&variable)).await,
        (Some("--check"), None) => check::run(&settings),
        (Some(argument), _) => {
            tracing::error!(argument, "unknown argument: only --check, version and --help are known");
            ExitCode::FAILURE
        }
    }
}
