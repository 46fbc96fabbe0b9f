//! Clients of a cluster.

use std::path::Path;

use anyhow::{Context as _, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// The client configuration in a kubeconfig file.
pub async fn config(kubeconfig: &Path) -> Result<Config> {
    // Somebody else in the process may have been first; any provider will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let file =
        Kubeconfig::read_from(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("using {}", kubeconfig.display()))?;
    Ok(config)
}

/// A client with the identity in a kubeconfig file. It belongs to the async runtime that made it.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    Client::try_from(config(kubeconfig).await?).context("making a client")
}
