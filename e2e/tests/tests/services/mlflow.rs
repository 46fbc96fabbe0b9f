//! mlflow-ctl: the scenarios of the chapter by their number; 17 and 18 belong to the operand controller, which is not
//! built.
//!
//! Those that name a server "that the test controls" use a scripted one on loopback, the others a real MLflow. Long
//! times are shortened (decision 30): `--mlflow-resync-period` from 1 h to the 10 s of scenario 16, by a factor of 360.

mod faults;
mod keeping;
mod many;
mod outage;
mod real;
mod setup;

use anyhow::Result;
use e2e::Ns;
use e2e::json::Json as _;
use e2e::secs;
use e2e::services::Tracking;
use e2e::services::agents::{template_container, tracked};
use serde_json::Value;

/// The four variables in their order.
const VARIABLES: [&str; 4] =
    ["MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_AUTH", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"];
/// Role and RoleBinding of Deployment `weather`.
const GRANT: &str = "kagenti-mlflow-weather";
/// The condition.
const CONDITION: &str = "MLflowConfigured";
/// It, when there is no experiment to be had.
const FAILED: &str = "False/ExperimentFailed";

/// Names of a container's variables, in order.
fn names(workload: &Value, container: &str) -> Vec<String> {
    let container = template_container(workload, container);
    let env = container.map(|container| container.items("/env").to_vec()).unwrap_or_default();
    env.iter().map(|variable| variable.text("/name").to_owned()).collect()
}

/// A namespace with Deployment `weather`, configured.
async fn weather(tracking: &Tracking) -> Result<(Ns, Value)> {
    let ns = tracking.namespace("team1", Value::Null).await?;
    ns.create(tracked("weather")).await?;
    let workload = tracking.until_configured(&ns, secs(10), "weather").await?;
    Ok((ns, workload))
}
