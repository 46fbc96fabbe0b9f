//! The suite's programs as processes with the identity and the rights they ship with.

mod rights;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};

pub use self::rights::{RbacMode, Rights};
use crate::cluster::Cluster;
use crate::control_plane::{Credential, kubeconfig, write_private};
use crate::ports::Port;
use crate::supervisor::protocol::{Exit, ProcessSpec, Signal};
use crate::usage::Usage;
use crate::wait::log_tail;
use crate::{access, components, http, wait_for};

/// Lifetime of the tokens, longer than any test.
const TOKEN_SECONDS: i64 = 24 * 3600;

/// A change to a component's rights.
pub type RightsEdit = Box<dyn FnOnce(&mut Rights) + Send>;

/// What to start. Made by [`ComponentOptions::new`]; every field may be changed.
pub struct ComponentOptions {
    /// Package and program, such as `runtime-ctl`; also the chart that holds its rights.
    pub name: String,
    /// Name of this process among several of the component: its Pod name, log and kubeconfig are named
    /// after it. Default: the component's name.
    pub instance: String,
    /// Namespace of the suite (`POD_NAMESPACE`). Default `kagenti-system`; made when missing.
    pub namespace: String,
    /// ServiceAccount in that namespace. Default: the component's name.
    pub service_account: String,
    /// Further arguments.
    pub args: Vec<String>,
    /// Further environment.
    pub env: BTreeMap<String, String>,
    /// Where it looks.
    pub rbac: RbacMode,
    /// A last change to its rights, for tests of missing ones.
    pub rbac_edit: Option<RightsEdit>,
    /// Whether it serves admission and gets `--webhook-bind-address`. Default: by name.
    pub webhook: bool,
}

impl ComponentOptions {
    /// A component in `kagenti-system` that watches the whole cluster.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            instance: name.to_owned(),
            namespace: "kagenti-system".to_owned(),
            service_account: name.to_owned(),
            args: Vec::new(),
            env: BTreeMap::new(),
            rbac: RbacMode::Cluster,
            rbac_edit: None,
            webhook: name == "authbridge-webhook",
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Names this process among several of the component.
    #[must_use]
    pub fn instance(mut self, instance: &str) -> Self {
        instance.clone_into(&mut self.instance);
        self
    }

    /// Puts the suite into another namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// Watches these namespaces only, with Roles only.
    #[must_use]
    pub fn namespaced<S: Into<String>>(mut self, namespaces: impl IntoIterator<Item = S>) -> Self {
        self.rbac = RbacMode::Namespaced(namespaces.into_iter().map(Into::into).collect());
        self
    }

    /// Changes the rights before they are granted.
    #[must_use]
    pub fn edit_rights(mut self, edit: impl FnOnce(&mut Rights) + Send + 'static) -> Self {
        self.rbac_edit = Some(Box::new(edit));
        self
    }
}

/// A process of a component. It ends with the cluster, or when the handle is dropped.
#[derive(Debug)]
pub struct Component {
    cluster: Cluster,
    spec: ProcessSpec,
    kubeconfig: PathBuf,
    probe: Port,
    metrics: Port,
    webhook: Option<Port>,
    pid: Mutex<i32>,
}

impl Component {
    /// Grants the component its rights, gives it a token of its ServiceAccount and starts it. Returns once
    /// the process exists; see [`Component::wait_ready`].
    pub async fn start(cluster: &Cluster, mut options: ComponentOptions) -> Result<Self> {
        let binary = {
            let (name, profile) = (options.name.clone(), cluster.options().profile);
            let built = tokio::task::spawn_blocking(move || components::build(&[&name], profile));
            built.await.context("building the component")??.path(&options.name)?.to_owned()
        };
        let kubeconfig = prepare_identity(cluster, &mut options)
            .await
            .with_context(|| format!("preparing the identity of {}", options.name))?;
        let (probe, metrics) = (Port::lease()?, Port::lease()?);
        let webhook = options.webhook.then(Port::lease).transpose()?;
        let mut args = vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--health-probe-bind-address=127.0.0.1:{}", probe.number()),
            format!("--metrics-bind-address=127.0.0.1:{}", metrics.number()),
            "--metrics-secure=false".to_owned(),
        ];
        if let Some(port) = &webhook {
            args.push(format!("--webhook-bind-address=127.0.0.1:{}", port.number()));
        }
        if let RbacMode::Namespaced(namespaces) = &options.rbac {
            args.push(format!("--watch-namespaces={}", namespaces.join(",")));
        }
        args.extend(options.args);
        let mut env = BTreeMap::from([
            ("POD_NAMESPACE".to_owned(), options.namespace),
            ("POD_NAME".to_owned(), options.instance.clone()),
        ]);
        env.extend(options.env);
        let log = cluster.log_path(&options.instance);
        let spec = ProcessSpec { name: options.instance, program: binary, args, env, log, netns: None };
        let pid = cluster.link().spawn(spec.clone()).await?;
        let cluster = cluster.clone();
        Ok(Self { cluster, spec, kubeconfig, probe, metrics, webhook, pid: Mutex::new(pid) })
    }

    /// Waits until `/readyz` answers 200; an error carries the last answer and the end of the log.
    pub async fn wait_ready(&self, limit: Duration) -> Result<()> {
        let name = &self.spec.name;
        let url = format!("{}/readyz?verbose", self.probe_url());
        let ready = wait_for(limit, &format!("{name} to get ready"), async || {
            if !self.is_running() {
                // Looking again cannot help: hand the failure out as the value.
                return Ok(Some(false));
            }
            let (status, body) = http::get(&url).await?;
            if !status.is_success() {
                bail!("/readyz says {status}: {}", body.trim());
            }
            Ok(Some(true))
        })
        .await;
        match ready {
            Ok(true) => Ok(()),
            Ok(false) => bail!("{name} has ended; its log ends with:\n{}", self.log_tail()),
            Err(error) => Err(error.context(format!("the log of {name} ends with:\n{}", self.log_tail()))),
        }
    }

    /// Process id of the running, or last, process.
    pub fn pid(&self) -> i32 {
        *self.pid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the process runs.
    pub fn is_running(&self) -> bool {
        Usage::of(self.pid()).is_ok()
    }

    /// Kills it without warning and waits until it is gone.
    pub async fn kill9(&self) -> Result<Exit> {
        self.cluster.link().signal(self.pid(), Signal::Kill).await?;
        self.ended().await
    }

    /// Asks it to end, as a kubelet does, and waits until it is gone.
    pub async fn terminate(&self) -> Result<Exit> {
        self.cluster.link().signal(self.pid(), Signal::Term).await?;
        self.ended().await
    }

    /// Sends a signal, such as [`Signal::Stop`] to freeze it.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.cluster.link().signal(self.pid(), signal).await
    }

    /// Waits until it has ended by itself or otherwise, and says how.
    pub async fn ended(&self) -> Result<Exit> {
        self.cluster.process_ended(self.pid()).await
    }

    /// Starts it again after its end: same ports, identity, arguments and log.
    pub async fn restart(&self) -> Result<()> {
        self.restart_with(&[]).await
    }

    /// Like [`Component::restart`], with more arguments (the last of a repeated flag counts).
    pub async fn restart_with(&self, extra: &[String]) -> Result<()> {
        if self.is_running() {
            bail!("{} still runs; end it first", self.spec.name);
        }
        let mut spec = self.spec.clone();
        spec.args.extend(extra.iter().cloned());
        let pid = self.cluster.link().spawn(spec).await?;
        *self.pid.lock().unwrap_or_else(PoisonError::into_inner) = pid;
        Ok(())
    }

    /// Everything it wrote so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.spec.log)
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .unwrap_or_default()
    }

    /// The file it writes to.
    pub fn log_path(&self) -> &std::path::Path {
        &self.spec.log
    }

    /// The end of its log, for messages of failed tests.
    pub fn log_tail(&self) -> String {
        log_tail(&self.spec.log, 20)
    }

    /// `http://127.0.0.1:<port>` of `/healthz` and `/readyz`.
    pub fn probe_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.probe.number())
    }

    /// Its metrics in the Prometheus text format.
    pub async fn metrics_text(&self) -> Result<String> {
        let (status, body) =
            http::get(&format!("http://127.0.0.1:{}/metrics", self.metrics.number())).await?;
        if !status.is_success() {
            bail!("/metrics of {} says {status}: {}", self.spec.name, body.trim());
        }
        Ok(body)
    }

    /// Port of its admission server.
    pub fn webhook_port(&self) -> Result<u16> {
        self.webhook
            .as_ref()
            .map(Port::number)
            .with_context(|| format!("{} serves no admission", self.spec.name))
    }

    /// Processor time and memory it used so far; an error when it has ended.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.pid()).with_context(|| format!("measuring {}", self.spec.name))
    }

    /// A client with the component's own identity and rights.
    pub async fn client(&self) -> Result<kube::Client> {
        access::client(&self.kubeconfig).await
    }

    /// Kubeconfig with the component's own identity.
    pub fn kubeconfig(&self) -> &std::path::Path {
        &self.kubeconfig
    }

    /// How it is started.
    pub fn spec(&self) -> &ProcessSpec {
        &self.spec
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        self.cluster.link().signal_and_forget(self.pid(), Signal::Kill);
    }
}

/// Makes ServiceAccount, roles, bindings and token; returns the kubeconfig with them.
async fn prepare_identity(cluster: &Cluster, options: &mut ComponentOptions) -> Result<PathBuf> {
    let mut rights = Rights::shipped(&options.name)?;
    if let Some(edit) = options.rbac_edit.take() {
        edit(&mut rights);
    }
    let subject = rights::Subject {
        component: &options.name,
        service_account: &options.service_account,
        namespace: &options.namespace,
    };
    cluster.apply_objects(&rights.objects(subject, &options.rbac)).await?;
    let api: Api<ServiceAccount> = Api::namespaced(cluster.client().await?, &options.namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let answer = api
        .create_token_request(&options.service_account, &PostParams::default(), &request)
        .await
        .with_context(|| format!("requesting a token for {}", options.service_account))?;
    let token = answer.status.and_then(|status| status.token).context("the answer has no token")?;
    let admin = access::config(cluster.kubeconfig()).await?;
    let roots = admin.root_cert.unwrap_or_default();
    let ca: String = roots.iter().map(|der| pem(der)).collect();
    let server = admin.cluster_url.to_string();
    let path = cluster.info().dir.join(format!("{}.kubeconfig", options.instance));
    write_private(&path, &kubeconfig(server.trim_end_matches('/'), &ca, &Credential::Token(&token)))?;
    Ok(path)
}

/// A certificate in PEM.
fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut lines = String::from("-----BEGIN CERTIFICATE-----\n");
    for (index, letter) in text.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            lines.push('\n');
        }
        lines.push(letter);
    }
    lines.push_str("\n-----END CERTIFICATE-----\n");
    lines
}
