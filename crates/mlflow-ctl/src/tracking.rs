//! Talking to an MLflow server (MLflow §5).
//!
//! [requests] are built and [answers] are read by pure functions; [experiments] is the order in which they are used,
//! [known] what the servers said of themselves, and [client] the only part with a connection.

pub mod answers;
pub mod capabilities;
pub mod client;
pub mod experiments;
pub mod known;
pub mod requests;
pub mod token;

pub use answers::{Code, Pace, Problem};
pub use capabilities::Usage;
pub use client::Tracking;
pub use experiments::{Asked, Failure, Found};
