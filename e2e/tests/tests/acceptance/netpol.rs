//! netpol-ctl: card scenarios 16 and 17, the rules of card §15, and what the process promises.
//!
//! It reads nothing but the API, so these tests write AgentCards and their verdicts themselves.

mod disable;
mod fixture;
mod identity;
mod policies;
mod replicas;
mod scope;
