//! Faults: what must not break, or must break closed.

mod admission;
mod crash;
pub(crate) mod fixture;
mod leaders;
mod legacy;
mod outage;
mod races;
mod rights;
mod undecodable;
