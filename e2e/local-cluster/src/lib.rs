//! A real Kubernetes control plane on this machine, for the demo, the tests and the benchmarks.
//!
//! [`Cluster::start`] finds or builds etcd, kube-apiserver, kube-controller-manager, kube-scheduler and
//! kwok, starts them on loopback with fake nodes (about 4 s) and returns a handle. Deployments really make
//! ReplicaSets and Pods, Pods really pass admission and "run", but no container does. Everything runs below
//! one supervisor process ([`supervisor`]), so nothing is left behind however the caller ends.
//!
//! [`Component::start`] runs a program of the suite as its own process, with a token of its own
//! ServiceAccount and exactly the rights in `charts/<component>/files/rbac.yaml`.
//!
//! | to | use |
//! |---|---|
//! | talk to the cluster | [`Cluster::client`], [`Cluster::kubectl`], [`Cluster::apply_yaml`] |
//! | install the CRDs and the webhook | [`Cluster::install_crds`], [`Cluster::register_webhook`] |
//! | count requests | [`Cluster::audit`]: a [`Mark`], then [`Audit::counts`] or [`Audit::since`] |
//! | measure | [`Component::usage`], [`Component::metrics_text`], [`Cluster::metrics`] |
//! | break the control plane | [`Cluster::api_server`], [`Cluster::forget_history`], [`Cluster::compact_etcd`] |
//! | break a component | [`Component::kill9`], [`Component::signal`], [`ComponentOptions::edit_rights`] |
//! | let something answer at a Pod's address (as root) | [`Cluster::listen`], or [`Cluster::start_process`] with the cluster's `netns` |
//! | put replicas of a webhook behind one address | [`Relay`] |
//! | have a real Keycloak or MLflow beside it | [`services`] |
//! | install the charts with Helm | [`Helm`], on [a real node](node) with [`images`] |
//! | run a program to its end | [`run_within`] |
//! | wait | [`wait_for`], [`Component::wait_ready`], never a sleep |
//!
//! ```no_run
//! use std::time::Duration;
//! use local_cluster::{Cluster, ClusterOptions, Component, ComponentOptions};
//!
//! # async fn example() -> anyhow::Result<()> {
//! let cluster = Cluster::start(ClusterOptions::default()).await?;
//! cluster.install_crds().await?;
//! let webhook = Component::start(&cluster, ComponentOptions::new("authbridge-webhook")).await?;
//! cluster.register_webhook(&format!("https://127.0.0.1:{}", webhook.webhook_port()?), None).await?;
//! let runtime = Component::start(&cluster, ComponentOptions::new("runtime-ctl")).await?;
//! runtime.wait_ready(Duration::from_secs(20)).await?;
//!
//! let audit = cluster.audit()?;
//! let mark = audit.mark()?;
//! cluster.apply_yaml("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}").await?;
//! let writes = audit.since(mark, |request| request.short_user() == "runtime-ctl" && request.is_write())?;
//! assert!(writes.is_empty());
//! # Ok(()) }
//! ```
//!
//! A handle may be shared between tests with different async runtimes; a client may not.

pub mod access;
mod agents;
mod audit;
mod cluster;
mod component;
pub mod components;
mod control_plane;
mod faults;
mod helm;
pub mod http;
pub mod images;
mod manifests;
mod network;
pub mod node;
mod options;
pub mod ports;
pub mod programs;
pub mod python;
mod registration;
mod relay;
mod run;
pub mod services;
pub mod supervisor;
pub mod terminal;
pub mod up;
mod usage;
mod wait;
mod workdir;

pub use agents::machine_address;
pub use audit::{ApiRequest, Audit, Counts, Mark, Sum};
pub use cluster::{Cluster, ensure_programs};
pub use component::{Component, ComponentOptions, RbacMode, Rights, RightsEdit};
pub use faults::ControlledProgram;
pub use helm::Helm;
pub use options::{ClusterOptions, Profile};
pub use relay::Relay;
pub use run::run_within;
pub use supervisor::protocol::{ClusterInfo, Exit, ProcessSpec, Signal};
pub use usage::Usage;
pub use wait::wait_for;
