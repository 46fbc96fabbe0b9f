//! Passes against a scripted API server and a small Keycloak on loopback: the exact calls, and none when nothing differs.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unwrap_in_result,
    clippy::unwrap_used,
    reason = "a test says what it expects, and panics otherwise"
)]

mod audience;
mod cleanup;
mod defaults;
mod earlier;
mod kept;
mod keycloak;
mod leaving;
mod logins;
mod register;
mod secrets;
mod sharing;
mod stage;
mod trust;
mod unwatched;
