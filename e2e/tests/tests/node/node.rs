//! A real node with the images that tests need on it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use e2e::{Ns, kinds, objects};
use local_cluster::images::stand_ins;
use local_cluster::images::suite::{self, PROGRAMS, Packed};
use local_cluster::node::preflight;
use local_cluster::programs::{Program, Programs};
use local_cluster::terminal::Terminal;
use local_cluster::{Cluster, ClusterOptions};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

static BUILT: OnceCell<Result<Arc<Built>, String>> = OnceCell::const_new();
static SHARED: OnceCell<Result<Arc<RealNode>, String>> = OnceCell::const_new();

/// What is built once for all clusters.
pub(crate) struct Built {
    /// The images of the suite.
    pub(crate) images: Vec<Packed>,
    /// Tarballs of the images that stand for others.
    others: Vec<PathBuf>,
    /// Helm.
    pub(crate) helm: PathBuf,
}

/// A cluster with a real node and every image on it.
pub(crate) struct RealNode {
    cluster: Cluster,
    built: Arc<Built>,
}

impl RealNode {
    /// The one that tests share, with a namespace each.
    pub(crate) async fn shared() -> Result<Arc<Self>> {
        let start = || async { Self::own().await.map(Arc::new).map_err(|error| format!("{error:#}")) };
        SHARED.get_or_init(start).await.clone().map_err(|error| anyhow!("the shared node: {error}"))
    }

    /// One of the test's own, to install a release on or to break.
    pub(crate) async fn own() -> Result<Self> {
        let start = || async {
            let built = tokio::task::spawn_blocking(build).await.context("building the images");
            built.and_then(|built| built).map(Arc::new).map_err(|error| format!("{error:#}"))
        };
        let built = BUILT.get_or_init(start).await.clone().map_err(|error| anyhow!(error))?;
        let cluster = Cluster::start(ClusterOptions::on_a_real_node()).await?;
        let mut files = built.others.clone();
        files.extend(built.images.iter().map(|image| image.file.clone()));
        cluster.import_images(&files).await?;
        Ok(Self { cluster, built })
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(crate) fn built(&self) -> &Built {
        &self.built
    }

    /// A new namespace with labels.
    pub(crate) async fn namespace(&self, name: &str, labels: Value) -> Result<Ns> {
        let all = Ns::cluster(self.cluster.client().await?);
        let namespace = objects::named(kinds::NAMESPACE, name).with(json!({"metadata": {"labels": labels}}));
        all.create(namespace).await?;
        Ok(all.other(name))
    }
}

fn build() -> Result<Built> {
    // Before minutes are spent.
    preflight::ensure(Terminal::stderr())?;
    let images = suite::pack_or_take(&PROGRAMS)?;
    let others = stand_ins::pack(&suite::default_dir())?;
    let helm = Programs::ensure(&[Program::Helm], Terminal::stderr())?.path(Program::Helm)?.to_owned();
    Ok(Built { images, others, helm })
}
