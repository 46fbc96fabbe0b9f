//! One pass at a time against an API server that records every call.

#![allow(
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::unwrap_used,
    reason = "a test says what it expects, and panics otherwise"
)]

mod cards;
mod marks;
mod stage;
