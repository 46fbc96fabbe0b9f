//! card-ctl: makes AgentCards for labelled workloads, fetches the card of each agent, verifies it and says so.
//!
//! Watches fill small [indexes](index), the indexes wake keys in one [queue](controller_kit::queue), and a
//! [pass](reconcile) over a key works out one status and writes what differs. No pass waits for an agent: it reads what
//! was [observed](observation) last and orders a [fetch](fetching) when that is too old. Decisions are pure: [sync],
//! [readiness], [source], [evaluation], [binding], [verdict], [status], [label], [renewal], [events].

pub mod agent;
pub mod binding;
pub mod bundle;
pub mod card;
pub mod conditions;
pub mod context;
pub mod discovery;
pub mod error;
pub mod evaluation;
pub mod events;
pub mod evidence;
pub mod fetch;
pub mod fetching;
pub mod index;
pub mod invalid;
pub mod kinds;
pub mod label;
pub mod metrics;
pub mod news;
pub mod observation;
pub mod offline;
pub mod pace;
pub mod pods;
pub mod process;
pub mod readiness;
pub mod reading;
pub mod reconcile;
pub mod renewal;
pub mod runtime_card;
pub mod schedule;
pub mod settings;
pub mod source;
pub mod sources;
pub mod status;
pub mod sync;
pub mod target;
pub mod trust;
pub mod unlabelled;
pub mod verdict;
pub mod watches;
pub mod work;
pub mod workload;
pub mod write;
