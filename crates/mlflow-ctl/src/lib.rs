//! mlflow-ctl: gives every agent its own MLflow experiment (chapter MLflow of the specification).
//!
//! For each workload labelled as an agent it finds an MLflow [server], has the server make an [experiment](tracking),
//! lets the agent's ServiceAccount use that one and no other ([grant]), and writes four variables and four annotations
//! into the pod template in one [patch]. What belongs to the user is decided by [env]; what a failure means by
//! [tracking::answers]. Watches fill small [indexes](index), the indexes wake keys in one queue, and a
//! [pass](reconcile) over a key writes only what differs.

pub mod announce;
pub mod conditions;
pub mod configure;
pub mod context;
pub mod eligibility;
pub mod env;
pub mod error;
pub mod grant;
pub mod granting;
pub mod index;
pub mod kinds;
pub mod leaving;
pub mod leftovers;
pub mod metrics;
pub mod naming;
pub mod patch;
pub mod process;
pub mod reconcile;
pub mod rollout;
pub mod server;
pub mod settings;
pub mod sources;
mod template;
pub mod track;
pub mod tracking;
pub mod watches;
pub mod work;
pub mod workload;
pub mod write;
