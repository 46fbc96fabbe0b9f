//! netpol-ctl: turns the verdict on an AgentCard into a NetworkPolicy (card §15).
//!
//! Watches fill small [indexes](index), the indexes wake keys in one [queue](controller_kit::queue), and a
//! [pass](reconcile) over the workloads of one name writes only what differs. What has to be there is decided by pure
//! modules ([verdict], [plan], [desired], [naming], [api_server]); only [write], [cleanup] and the watches talk to the
//! API server. Nothing but the condition `Verified` of a card opens traffic.

pub mod announce;
pub mod api_server;
pub mod card;
pub mod cleanup;
pub mod context;
pub mod desired;
pub mod error;
pub mod index;
pub mod metrics;
pub mod naming;
pub mod plan;
pub mod policy;
pub mod process;
pub mod reconcile;
pub mod settings;
pub mod sources;
pub mod verdict;
pub mod watches;
pub mod work;
pub mod workload;
pub mod write;
