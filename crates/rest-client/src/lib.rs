//! What every call to a server outside Kubernetes needs, and nothing about any such server.
//!
//! A call goes to a [base URL](base_url::BaseUrl) that compares by its normal form, takes a token of that server's
//! bucket, asks its circuit, never follows a redirect and never uses a proxy, ends in time, reads a bounded body, is
//! repeated with jitter while repeating can help, and leaves neither secrets nor foreign text in errors.

pub mod base_url;
mod breaker;
pub mod ca;
pub mod client;
pub mod endpoint;
pub mod error;
pub mod options;
pub mod quote;
pub mod request;
pub mod response;
pub mod secret;

pub use base_url::BaseUrl;
pub use client::RestClient;
pub use endpoint::Endpoint;
pub use error::CallError;
pub use request::Request;
pub use response::Response;
pub use secret::Secret;
