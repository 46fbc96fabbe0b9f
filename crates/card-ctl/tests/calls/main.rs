//! One pass at a time against an API server that records every call.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    clippy::unwrap_used,
    reason = "a test says what it expects, and panics otherwise"
)]

mod cards;
mod flapping;
mod invalid;
mod marks;
mod renewing;
mod stage;
