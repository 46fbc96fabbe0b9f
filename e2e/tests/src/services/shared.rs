//! The servers that all tests share. They belong to one cluster and end with the test program.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use local_cluster::ClusterOptions;
use local_cluster::services::{Keycloak, KeycloakOptions, Mlflow, MlflowOptions, preflight};
use tokio::sync::OnceCell;

use crate::suite::{Options, Suite};

/// What was started once, or why it could not be.
type Once<T> = OnceCell<Result<Arc<T>, String>>;

static HOST: Once<Suite> = OnceCell::const_new();
static KEYCLOAK: Once<Keycloak> = OnceCell::const_new();
static MLFLOW: Once<Mlflow> = OnceCell::const_new();
static WORKSPACES: Once<Mlflow> = OnceCell::const_new();

/// The cluster that holds the servers, for tests that need no component of their own.
pub struct Servers;

impl Servers {
    /// A cluster with the CRDs of the suite and of MLflow, without runtime-ctl, webhook and SPIRE.
    pub async fn suite() -> Result<Arc<Suite>> {
        let started = HOST.get_or_init(|| async {
            let start = async {
                preflight::require().await?;
                Suite::beside_tests(without_pods()).await.map(Arc::new)
            };
            start.await.map_err(|error| format!("{error:#}"))
        });
        started.await.clone().map_err(|error| anyhow!("the cluster of the servers: {error}"))
    }
}

/// Options of clusters on which these components are tested: nothing injects, nobody else writes.
pub fn bare() -> Options {
    Options::default().without_webhook().without_runtime_ctl().without_csi_driver().fixture("mlflow")
}

/// The same where no Pod runs: no nodes, no scheduler. They start sooner.
pub fn without_pods() -> Options {
    let cluster = ClusterOptions { nodes: 0, scheduler: false, ..ClusterOptions::default() };
    Options { cluster, ..bare() }
}

/// The Keycloak of all tests.
pub async fn keycloak() -> Result<Arc<Keycloak>> {
    let suite = Servers::suite().await?;
    let started = KEYCLOAK.get_or_init(|| async {
        let keycloak = Keycloak::start(suite.cluster(), KeycloakOptions::default()).await;
        keycloak.map(Arc::new).map_err(|error| format!("{error:#}"))
    });
    started.await.clone().map_err(|error| anyhow!(error)).context("the shared Keycloak")
}

/// The stock MLflow of all tests.
pub async fn mlflow() -> Result<Arc<Mlflow>> {
    shared_mlflow(&MLFLOW, MlflowOptions::default()).await.context("the shared MLflow")
}

/// The MLflow of all tests that have workspaces.
pub async fn mlflow_with_workspaces() -> Result<Arc<Mlflow>> {
    let options =
        MlflowOptions { name: "mlflow-workspaces".to_owned(), workspaces: true, ..Default::default() };
    shared_mlflow(&WORKSPACES, options).await.context("the shared MLflow with workspaces")
}

async fn shared_mlflow(cell: &Once<Mlflow>, options: MlflowOptions) -> Result<Arc<Mlflow>> {
    let suite = Servers::suite().await?;
    let started = cell.get_or_init(|| async {
        let mlflow = Mlflow::start(suite.cluster(), options).await;
        mlflow.map(Arc::new).map_err(|error| format!("{error:#}"))
    });
    started.await.clone().map_err(|error| anyhow!(error))
}
