//! Faults: what must not break, or must break closed.

mod admission;
