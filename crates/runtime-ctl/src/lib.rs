//! runtime-ctl: enrols the workload named by an AgentRuntime.
//!
//! Labels and annotations on a workload and its pod template make Kubernetes roll the Pods; the admission webhook
//! then injects the sidecars. Watches fill small [indexes](index), the indexes wake keys in one
//! [queue](controller_kit::queue), and a
//! [pass](reconcile) over a key writes only what differs. What has to differ is decided by pure modules
//! ([enrolment], [withdraw], [status], [decide], [drift], [target]); the others talk to the API server.

pub mod announce;
pub mod bootstrap;
pub mod cleanup;
pub mod context;
pub mod crds;
pub mod decide;
pub mod drift;
pub mod enrol;
pub mod enrolment;
pub mod error;
pub mod index;
pub mod invalid;
pub mod kinds;
pub mod mesh;
pub mod metrics;
pub mod ovn;
pub mod patch;
pub mod process;
pub mod propagation;
pub mod reconcile;
pub mod sandbox;
pub mod scc;
pub mod settings;
pub mod skills;
pub mod sources;
pub mod status;
pub mod target;
pub mod tls_bridge;
pub mod unenroll;
pub mod watches;
pub mod withdraw;
pub mod work;
pub mod workload;
pub mod write;
