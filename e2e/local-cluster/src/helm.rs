//! Real Helm with the charts of this clone.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::components::workspace;

/// Helm with settings of its own and a copy of the charts, whose dependencies it has packed.
pub struct Helm {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: TempDir,
}

impl Helm {
    /// Copies the charts and runs `helm dependency build` on the umbrella.
    pub async fn new(program: &Path, cluster: &Cluster) -> Result<Self> {
        let home = tempfile::tempdir().context("a directory for Helm")?;
        copy(&workspace().join("charts"), &home.path().join("charts"))?;
        let helm = Self { program: program.to_owned(), kubeconfig: cluster.kubeconfig().to_owned(), home };
        let chart = helm.chart();
        helm.run(["dependency".as_ref(), "build".as_ref(), chart.as_os_str()]).await?;
        Ok(helm)
    }

    /// The umbrella; the charts of the components are beside it.
    pub fn chart(&self) -> PathBuf {
        self.home.path().join("charts/kagenti-operator")
    }

    /// What it printed; an error carries what it said.
    pub async fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        let output = self.attempt(args).await?;
        if !output.status.success() {
            let said =
                [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            bail!("helm ended with {}:\n{}", output.status, said.concat());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// How it ended.
    pub async fn attempt<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Output> {
        let mut command = tokio::process::Command::new(&self.program);
        let dir = |name: &str| self.home.path().join(name);
        command
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HELM_CACHE_HOME", dir("cache"))
            .env("HELM_CONFIG_HOME", dir("config"))
            .env("HELM_DATA_HOME", dir("data"))
            .kill_on_drop(true);
        command.output().await.context("starting helm")
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("listing {}", from.display()))? {
        let entry = entry.with_context(|| format!("listing {}", from.display()))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            // What somebody packed before is not what is meant.
            if entry.file_name() != "charts" || !path.join("../Chart.yaml").exists() {
                copy(&path, &target)?;
            }
        } else {
            fs::copy(&path, &target).with_context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}
