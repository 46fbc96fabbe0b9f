//! The kubectl plugin on a real API server (packaging §15, §16): what its users see, with the rights they have.

mod check;
mod uninstall;
mod version;

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use e2e::{Group, Json as _, Options, Suite, kinds, objects, secs};
use local_cluster::{ClusterOptions, Profile, components};
use serde_json::{Value, json};

/// The plugin's version, and that of the components it finds here.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// An API server with the definitions and nothing else.
static BARE: Group = Group::new(bare);

fn bare() -> Options {
    let cluster = ClusterOptions {
        nodes: 0,
        pod_addresses: false,
        controller_manager: false,
        scheduler: false,
        ..ClusterOptions::default()
    };
    Options { cluster, ..Options::default().without_webhook().without_runtime_ctl() }
}

/// What the plugin said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    /// Standard output as one JSON document.
    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("{self:?}"))
    }
}

/// Runs the plugin as the owner of a kubeconfig, without a terminal.
async fn run(kubeconfig: PathBuf, args: &[&str]) -> Result<Said> {
    let built =
        tokio::task::spawn_blocking(|| components::build(&["kubectl-kagenti"], Profile::Same)).await??;
    let mut command = tokio::process::Command::new(built.path("kubectl-kagenti")?);
    command.args(args).env("KUBECONFIG", kubeconfig).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(secs(60), command.output()).await.context("it does not end")??;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).context("text");
    Ok(Said { code: output.status.code(), out: text(output.stdout)?, err: text(output.stderr)? })
}

/// As an administrator.
async fn admin(suite: &Suite, args: &[&str]) -> Result<Said> {
    run(suite.cluster().kubeconfig().to_owned(), args).await
}

/// Somebody with a kubeconfig of their own.
struct Tenant {
    kubeconfig: PathBuf,
    _dir: tempfile::TempDir,
}

impl Tenant {
    /// Somebody with rights in one namespace only.
    async fn new(suite: &Suite, namespace: &str, rules: Value) -> Result<Self> {
        let user = format!("tenant-of-{namespace}");
        let ns = suite.global().await?.other(namespace);
        ns.create(objects::named(kinds::ROLE, "tenant").with(json!({"rules": rules}))).await?;
        let binding = json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tenant"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        });
        ns.create(objects::named(kinds::ROLE_BINDING, "tenant").with(binding)).await?;
        let (verb, resource, group) =
            (rules.text("/0/verbs/0"), rules.text("/0/resources/0"), rules.text("/0/apiGroups/0"));
        if !verb.is_empty() {
            let resource = format!("{resource}.{group}");
            granted(suite, &["-n", namespace, verb, resource.trim_end_matches('.'), "--as", &user]).await?;
        }
        Self::with(suite, |config| config["users"][0]["user"]["as"] = user.into())
    }

    /// The administrator, with something changed in the kubeconfig.
    fn with(suite: &Suite, change: impl FnOnce(&mut Value)) -> Result<Self> {
        let text = std::fs::read_to_string(suite.cluster().kubeconfig()).context("the kubeconfig")?;
        let mut config: Value = serde_saphyr::from_str(&text).context("the kubeconfig")?;
        change(&mut config);
        let dir = tempfile::tempdir().context("a directory")?;
        let kubeconfig = dir.path().join("kubeconfig");
        std::fs::write(&kubeconfig, config.to_string()).context("the kubeconfig")?;
        Ok(Self { kubeconfig, _dir: dir })
    }

    async fn run(&self, args: &[&str]) -> Result<Said> {
        run(self.kubeconfig.clone(), args).await
    }
}

/// Waits until a right counts: the API server has it in force a moment after it has stored it.
async fn granted(suite: &Suite, right: &[&str]) -> Result<()> {
    let args: Vec<&str> = ["auth", "can-i"].into_iter().chain(right.iter().copied()).collect();
    e2e::wait_for(secs(20), "a right to count", async || suite.cluster().kubectl(&args).await.map(Some))
        .await
        .map(drop)
}

/// A Deployment with the labels of a component, of which nothing runs.
fn component(name: &str, tag: &str) -> Value {
    let deployment = objects::deployment(&format!("kagenti-{name}"))
        .label("app.kubernetes.io/name", "kagenti-operator-chart")
        .label("app.kubernetes.io/part-of", "kagenti-operator")
        .label("app.kubernetes.io/component", name)
        .replicas(0);
    let container = json!({"name": name, "image": format!("ghcr.io/kagenti/kagenti-operator/{name}:{tag}")});
    deployment.containers(json!([container])).build()
}

/// The items of a document whose field has a value.
fn of<'a>(document: &'a Value, list: &str, name: &str) -> Result<&'a Value> {
    let found = document.items(list).iter().find(|item| item.text("/name") == name);
    found.with_context(|| format!("no {name} in {}", document.readable()))
}
