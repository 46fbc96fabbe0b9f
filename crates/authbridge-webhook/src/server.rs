//! The admission server above the HTTP layer: calls ([`endpoint`]) and their limits
//! ([`admission_gate`]).

pub mod admission_gate;
pub mod endpoint;
