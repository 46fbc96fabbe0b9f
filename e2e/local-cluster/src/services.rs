//! The servers outside Kubernetes that the suite talks to, as real ones: Keycloak and MLflow on loopback.
//!
//! Both come from their public registries into the user's cache, once, pinned and (Keycloak) checked by digest. A
//! server belongs to a cluster: it runs below its supervisor and ends with it. It can be stopped and started again on
//! the same address, which is what an outage looks like from outside.
//!
//! Beside them: realms with clients ([`Realm`]), tokens and their check ([`Token`]), experiments and runs ([`runs`]), as the
//! demo and the tests look at them past every component.
//!
//! ```no_run
//! # async fn example(cluster: local_cluster::Cluster) -> anyhow::Result<()> {
//! use local_cluster::services::{Keycloak, KeycloakOptions, Mlflow, MlflowOptions};
//! let keycloak = Keycloak::start(&cluster, KeycloakOptions::default()).await?;
//! let mlflow = Mlflow::start(&cluster, MlflowOptions::default()).await?;
//! println!("{} {}", keycloak.url(), mlflow.url());
//! keycloak.server().stop().await?;
//! keycloak.server().start_again().await?;
//! # Ok(()) }
//! ```

mod archive;
mod java;
pub mod jwt;
mod keycloak;
mod mlflow;
pub mod preflight;
pub mod realm;
pub mod runs;
mod server;
pub mod web;

use std::io::Read as _;

use anyhow::{Context as _, Result};

pub use jwt::Token;
pub use keycloak::{Keycloak, KeycloakOptions};
pub use mlflow::{Mlflow, MlflowOptions};
pub use realm::{Account, Realm};
pub use server::Server;
pub use web::{Call, Reply};

/// A password of 32 hexadecimal digits from the system's random numbers.
fn new_password() -> Result<String> {
    let mut bytes = [0_u8; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("reading /dev/urandom")?;
    Ok(hex::encode(bytes))
}
