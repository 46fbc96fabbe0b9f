//! What this build is: release version and source revision.

use crate::cli::Component;

/// Release version of the suite.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Source revision, given to the build as `KAGENTI_REVISION`; `unknown` otherwise.
pub const REVISION: &str = match option_env!("KAGENTI_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// `<version> (<revision>)`.
pub fn text() -> String {
    format!("{VERSION} ({REVISION})")
}

/// Output of the sub-command `version` (packaging §12), without line end.
pub fn line(component: &Component) -> String {
    format!("{} {}", component.name, text())
}
