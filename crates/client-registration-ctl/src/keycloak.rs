//! Keycloak's Admin REST API as far as it is used (client-registration §5-§7): pure representations and decisions, and
//! the client that makes the calls.

pub mod admin;
pub mod api;
pub mod attributes;
pub mod client;
pub mod error;
pub mod objects;
pub mod scope;
pub mod session;
pub mod token;

pub use admin::{AdminCredentials, AdminSecret};
pub use api::Keycloak;
pub use error::KeycloakError;
