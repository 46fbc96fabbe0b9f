//! Scenarios of the webhook chapter.

mod answers;
mod availability;
mod duplicates;
mod envoy;
pub(crate) mod fixture;
mod gates;
mod identity_provider;
mod jobs;
mod ports;
mod proxy;
mod reinvocation;
mod scale;
mod selection;
mod tls_bridge;
