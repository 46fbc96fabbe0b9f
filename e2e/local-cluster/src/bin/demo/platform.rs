//! `cargo demo --full`: the servers beside the cluster, and what an administrator prepares before the first agent comes.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use kube::api::DynamicObject;
use local_cluster::services::{Account, Keycloak, KeycloakOptions, Mlflow, MlflowOptions, Realm};
use local_cluster::terminal::Task;
use local_cluster::{Cluster, ComponentOptions};
use serde_json::json;

use super::screen::Screen;

/// The realm of the platform, as `--keycloak-realm` has it by default.
const REALM: &str = "kagenti";
/// Namespace and name of the Secret that client-registration-ctl may read with the rights it ships with.
const ADMIN: (&str, &str) = ("keycloak", "keycloak-initial-admin");
/// The rights of client-registration-ctl have a Role there, to read the bundle of a SPIRE.
const SPIRE_NAMESPACE: &str = "zero-trust-workload-identity-manager";

/// A real Keycloak with a realm, and a real MLflow.
pub(crate) struct Platform {
    keycloak: Keycloak,
    realm: Realm,
    registrar: Account,
    mlflow: Mlflow,
    password: PathBuf,
}

impl Platform {
    /// Starts both servers, after downloading what the user's cache has not got.
    pub(crate) async fn start(cluster: &Cluster, screen: &Screen) -> Result<Self> {
        // They show their own progress when there is something to download.
        Keycloak::prepare(cluster, &KeycloakOptions::default()).await?;
        Mlflow::prepare(cluster).await?;
        let task = screen.task("Keycloak with realm kagenti");
        let keycloak = shown(task, async {
            let keycloak = Keycloak::start(cluster, KeycloakOptions::default()).await?;
            let realm = Realm::create(&keycloak, REALM).await?;
            let registrar = realm.least_rights().await.context("a service account with least rights")?;
            Ok((keycloak, realm, registrar))
        });
        let (keycloak, realm, registrar) = keycloak.await?;
        let task = screen.task("MLflow");
        let mlflow = shown(task, Mlflow::start(cluster, MlflowOptions::default())).await?;
        let password = cluster.info().dir.join("keycloak-admin-password");
        let text = keycloak.admin_password();
        write_private(&password, text).with_context(|| format!("writing {}", password.display()))?;
        Ok(Self { keycloak, realm, registrar, mlflow, password })
    }

    /// What the guides tell an administrator to do: the Secret with the least rights in Keycloak, and the namespace of the
    /// agents enabled.
    pub(crate) async fn prepare(&self, cluster: &Cluster) -> Result<Vec<DynamicObject>> {
        let (namespace, name) = ADMIN;
        let objects = [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPIRE_NAMESPACE}}),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": namespace},
                "stringData": {"client-id": self.registrar.id, "client-secret": self.registrar.secret},
            }),
            json!({
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": "default", "labels": {"kagenti-enabled": "true"}},
            }),
        ];
        let yaml = objects.map(|object| object.to_string()).join("\n---\n");
        cluster.apply_yaml(&yaml).await.context("preparing the cluster for Keycloak")
    }

    /// How a component finds the servers.
    pub(crate) fn options(&self, name: &str) -> ComponentOptions {
        let options = ComponentOptions::new(name);
        match name {
            "client-registration-ctl" => options
                .args([
                    format!("--keycloak-url={}", self.keycloak.url()),
                    format!("--keycloak-realm={REALM}"),
                    "--keycloak-admin-auth=client-credentials".to_owned(),
                ])
                .env("KAGENTI_KEYCLOAK_PUBLIC_URL", self.keycloak.url()),
            "mlflow-ctl" => options.args([format!("--mlflow-tracking-uri={}", self.mlflow.url())]),
            _ => options,
        }
    }

    /// The realm of the agents.
    pub(crate) fn realm(&self) -> &Realm {
        &self.realm
    }

    /// The tracking server.
    pub(crate) fn mlflow(&self) -> &Mlflow {
        &self.mlflow
    }

    /// Where a browser finds both.
    pub(crate) fn explore(&self, screen: &Screen) {
        screen.plain("In a browser:", local_cluster::terminal::Tone::Plain);
        let console = format!("{}/admin/master/console/#/{REALM}/clients", self.keycloak.url());
        let password = self.password.display();
        let rows = [
            ("Keycloak", console),
            ("", format!("user {}, password in {password}", self.keycloak.admin_username())),
            ("", "made for this run and for tests only; it ends with the demo".to_owned()),
            ("MLflow", self.mlflow.url().to_owned()),
        ];
        for (name, text) in &rows {
            screen.named(name, text);
        }
    }
}

/// Ends the display of a task with its work, one way or the other.
pub(crate) async fn shown<T>(task: Task, work: impl Future<Output = Result<T>>) -> Result<T> {
    match work.await {
        Ok(value) => {
            task.done();
            Ok(value)
        }
        Err(error) => {
            task.cleared();
            Err(error)
        }
    }
}

/// Writes a file that only its owner may read.
fn write_private(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")
}
