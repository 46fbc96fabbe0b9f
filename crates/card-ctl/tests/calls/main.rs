//! One pass at a time against an API server that records every call.

#![allow(clippy::indexing_slicing, reason = "a test says what it expects, and panics otherwise")]

mod cards;
mod marks;
mod stage;
