//! What a machine needs for the real servers, checked before anything is downloaded.

use anyhow::{Result, bail};

use super::java::{self, Java};
use super::mlflow::OLDEST_PYTHON;
use crate::programs::preflight::Check;
use crate::python::Python;

/// Looks for Java and for a Python that can make environments.
pub async fn run() -> Vec<Check> {
    let java = Java::find().await;
    let python = Python::find("python3", OLDEST_PYTHON).await;
    let text = |error: anyhow::Error| format!("{error:#}");
    vec![
        Check {
            name: format!("Java {} or newer", java::OLDEST),
            outcome: java.map(|java| java.describe()).map_err(text),
        },
        Check {
            name: format!("Python {}.{}, venv", OLDEST_PYTHON.0, OLDEST_PYTHON.1),
            outcome: python.map(|python| python.describe()).map_err(text),
        },
    ]
}

/// Fails with everything that this machine lacks for the real servers.
pub async fn require() -> Result<()> {
    let missing: Vec<String> = run().await.into_iter().filter_map(|check| check.outcome.err()).collect();
    if !missing.is_empty() {
        bail!("this machine lacks something for Keycloak and MLflow:\n  - {}", missing.join("\n  - "));
    }
    Ok(())
}
