//! Faults: what must not break, or must break closed.

mod admission;
mod command_line;
mod crash;
mod fixture;
mod leaders;
mod legacy;
mod outage;
mod process;
mod races;
mod rights;
mod undecodable;
