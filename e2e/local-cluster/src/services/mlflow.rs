//! A real MLflow tracking server, from PyPI.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::new_password;
use super::server::{Process, Server};
use crate::cluster::Cluster;
use crate::ports::Port;
use crate::programs::cache_dir;
use crate::python::{Environment, Packages, Python};
use crate::supervisor::protocol::ProcessSpec;
use crate::terminal::Terminal;

/// Turns into `mlflow server`.
const SERVE: &str = include_str!("../../assets/mlflow/serve.py");
/// MLflow with its extras `auth` and `kubernetes`, and all they need.
const PACKAGES: Packages = Packages {
    name: "mlflow",
    requirements: include_str!("../../assets/mlflow/requirements.txt"),
    limit: Duration::from_mins(15),
};
/// The oldest Python that the pinned packages run on.
pub(super) const OLDEST_PYTHON: (u32, u32) = (3, 11);
/// Longest time until it answers on a busy machine; 7 s on one that is not.
const READY_WITHIN: Duration = Duration::from_mins(3);

/// What an MLflow should be like. The default is the stock server.
#[derive(Clone, Debug)]
pub struct MlflowOptions {
    /// Its name among the cluster's processes, also of its log.
    pub name: String,
    /// Switch workspaces on.
    pub workspaces: bool,
    /// Ask for user and password (`--app-name basic-auth`).
    pub basic_auth: bool,
    /// Values of the `Host` header that are served; MLflow's own list when empty.
    pub allowed_hosts: Vec<String>,
    /// Prefix of every path, such as `/mlflow`.
    pub prefix: String,
}

impl Default for MlflowOptions {
    fn default() -> Self {
        Self {
            name: "mlflow".to_owned(),
            workspaces: false,
            basic_auth: false,
            allowed_hosts: Vec::new(),
            prefix: String::new(),
        }
    }
}

/// A running MLflow.
#[derive(Debug)]
pub struct Mlflow {
    server: Server,
    url: String,
    data: PathBuf,
    python: PathBuf,
    admin_password: Option<Password>,
}

/// Not for logs.
struct Password(String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<password>")
    }
}

impl Mlflow {
    /// Starts one on loopback with an empty database; installs it first if need be, with progress on standard error.
    pub async fn start(cluster: &Cluster, options: MlflowOptions) -> Result<Self> {
        let python = installed(cluster).await?;
        let data = cluster.info().dir.join(format!("{}-data", options.name));
        fs::create_dir_all(&data).with_context(|| format!("creating {}", data.display()))?;
        let script = data.join("serve.py");
        fs::write(&script, SERVE).with_context(|| format!("writing {}", script.display()))?;

        let port = Port::lease()?;
        let url = format!("http://127.0.0.1:{}{}", port.number(), options.prefix);
        let password = options.basic_auth.then(new_password).transpose()?;
        let spec = ProcessSpec {
            args: args(&options, &script, &data, port.number()),
            env: environment(&options, &data, password.as_deref())?,
            log: cluster.log_path(&options.name),
            name: options.name,
            program: python.clone(),
            netns: None,
        };
        let probe = format!("{url}/health");
        let process = Process { spec, port, probe, ready_within: READY_WITHIN };
        let server = Server::start(cluster, process).await?;
        Ok(Self { server, url, data, python, admin_password: password.map(Password) })
    }

    /// Installs it, if need be, for callers that show their own progress at its start.
    pub async fn prepare(cluster: &Cluster) -> Result<()> {
        installed(cluster).await.map(drop)
    }

    /// Base URL with the path prefix, without trailing slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A Python with the `mlflow` client of the same version.
    pub fn python(&self) -> &Path {
        &self.python
    }

    /// Password of user `admin`; only with `basic_auth`.
    pub fn admin_password(&self) -> Option<&str> {
        self.admin_password.as_ref().map(|password| password.0.as_str())
    }

    /// The process, to stop it and to start it again.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Throws the database away, of a server that was stopped: it starts as a new one.
    pub fn forget_everything(&self) -> Result<()> {
        if self.server.is_running() {
            bail!("the server still runs; stop it first");
        }
        fs::remove_file(database(&self.data)).context("removing MLflow's database")
    }
}

/// The interpreter of the environment with MLflow; makes it first if need be.
async fn installed(cluster: &Cluster) -> Result<PathBuf> {
    let python = Python::find("python3", OLDEST_PYTHON).await.context("MLflow needs Python")?;
    let place = Environment::of(&cache_dir()?, PACKAGES, &python)?;
    if !place.is_made() {
        let mut task = Terminal::stderr().task(&format!("MLflow {} from PyPI (once per user)", version()));
        let made = place.make(cluster, &python, &mut task).await;
        match made {
            Ok(()) => task.done(),
            Err(error) => {
                task.cleared();
                return Err(error);
            }
        }
    }
    Ok(place.python())
}

/// The pinned version of MLflow.
fn version() -> &'static str {
    PACKAGES.requirements.lines().find_map(|line| line.strip_prefix("mlflow==")).unwrap_or_default()
}

fn database(data: &Path) -> PathBuf {
    data.join("mlflow.db")
}

fn args(options: &MlflowOptions, script: &Path, data: &Path, port: u16) -> Vec<String> {
    let mut args = vec![
        script.display().to_string(),
        data.display().to_string(),
        format!("--backend-store-uri=sqlite:///{}", database(data).display()),
        format!("--artifacts-destination={}", data.join("artifacts").display()),
        "--host=127.0.0.1".to_owned(),
        format!("--port={port}"),
        // One worker is the process itself.
        "--workers=1".to_owned(),
    ];
    if options.basic_auth {
        args.push("--app-name=basic-auth".to_owned());
    }
    if !options.allowed_hosts.is_empty() {
        args.push(format!("--allowed-hosts={}", options.allowed_hosts.join(",")));
    }
    if !options.prefix.is_empty() {
        args.push(format!("--static-prefix={}", options.prefix));
    }
    args
}

fn environment(
    options: &MlflowOptions,
    data: &Path,
    password: Option<&str>,
) -> Result<BTreeMap<String, String>> {
    let mut env = BTreeMap::from(
        [
            // No children that run jobs, and no reports to its makers.
            ("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false"),
            ("MLFLOW_DISABLE_TELEMETRY", "true"),
            ("DO_NOT_TRACK", "true"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    if options.workspaces {
        env.insert("MLFLOW_ENABLE_WORKSPACES".to_owned(), "true".to_owned());
    }
    if let Some(password) = password {
        env.insert("MLFLOW_AUTH_ADMIN_PASSWORD".to_owned(), password.to_owned());
        env.insert("MLFLOW_FLASK_SERVER_SECRET_KEY".to_owned(), new_password()?);
        env.insert("HOME".to_owned(), data.display().to_string());
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_is_pinned() {
        assert!(PACKAGES.requirements.lines().all(|line| line.contains("==")));
        assert!(version().starts_with("3."), "{}", version());
    }

    #[test]
    fn options_become_arguments() {
        let options = MlflowOptions {
            basic_auth: true,
            allowed_hosts: vec!["mlflow.mlflow.svc:*".to_owned()],
            prefix: "/mlflow".to_owned(),
            ..MlflowOptions::default()
        };
        let args = args(&options, Path::new("/d/serve.py"), Path::new("/d"), 5000).join(" ");
        assert!(args.contains("sqlite:////d/mlflow.db"), "{args}");
        assert!(
            args.ends_with(
                "--app-name=basic-auth --allowed-hosts=mlflow.mlflow.svc:* --static-prefix=/mlflow"
            )
        );
        let env = environment(&options, Path::new("/d"), Some("p")).expect("an environment");
        assert_eq!(env.get("MLFLOW_AUTH_ADMIN_PASSWORD").map(String::as_str), Some("p"));
    }
}
