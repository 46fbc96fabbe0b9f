//! Clusters with the suite installed.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use kube::Client;
use local_cluster::{ApiRequest, Cluster, ClusterOptions, Component, ComponentOptions, Mark};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

use crate::admission::Admission;
use crate::json::Json as _;
use crate::space::Ns;
use crate::{kinds, objects};

/// Namespace of the suite.
pub const OPERATOR_NAMESPACE: &str = api_types::names::DEFAULT_OPERATOR_NAMESPACE;
/// The enrolment controller: package, program, chart, ServiceAccount.
pub const RUNTIME_CTL: &str = "runtime-ctl";
/// The admission server: package, program, chart, ServiceAccount.
pub const WEBHOOK: &str = "authbridge-webhook";
/// How long a component may take to get ready on a machine that is busy with other tests.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Clusters that live at once beside the shared one; each keeps a core busy while it starts.
const OWN_CLUSTERS: usize = 3;
/// Tests that use the shared cluster at once. Their deadlines are the product's promises, so they must not starve.
const SHARING_TESTS: usize = 8;

static OWN: Semaphore = Semaphore::const_new(OWN_CLUSTERS);
static SHARING: Semaphore = Semaphore::const_new(SHARING_TESTS);
static SHARED: OnceCell<Result<Arc<Suite>, String>> = OnceCell::const_new();

/// What a cluster of a test's own looks like. The default is like the shared one.
pub struct Options {
    /// The control plane.
    pub cluster: ClusterOptions,
    /// Install the CRDs of the suite.
    pub crds: bool,
    /// Create CSIDriver `csi.spiffe.io`: SPIRE counts as installed.
    pub csi_driver: bool,
    /// Folders below `e2e/fixtures` with CRDs to install before the components start.
    pub fixtures: Vec<&'static str>,
    /// Platform configuration, as file and as ConfigMap.
    pub platform: Option<String>,
    /// Feature gates, as file and as ConfigMap.
    pub gates: Option<String>,
    /// Objects that exist before the components start, in this order; they name their namespaces.
    pub objects: Vec<Value>,
    /// Processes of runtime-ctl.
    pub runtime_ctl: Vec<ComponentOptions>,
    /// Processes of authbridge-webhook. The first one is registered with the API server.
    pub webhook: Vec<ComponentOptions>,
    /// Wait until every process is ready (with leader election followers are, too).
    pub wait_ready: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster: ClusterOptions::default(),
            crds: true,
            csi_driver: true,
            fixtures: Vec::new(),
            platform: None,
            gates: None,
            objects: Vec::new(),
            runtime_ctl: vec![runtime_ctl()],
            webhook: vec![webhook()],
            wait_ready: true,
        }
    }
}

impl Options {
    /// Without authbridge-webhook: Pods stay as they are, nothing is validated.
    #[must_use]
    pub fn without_webhook(mut self) -> Self {
        self.webhook.clear();
        self
    }

    /// Without runtime-ctl.
    #[must_use]
    pub fn without_runtime_ctl(mut self) -> Self {
        self.runtime_ctl.clear();
        self
    }

    /// Without SPIRE.
    #[must_use]
    pub fn without_csi_driver(mut self) -> Self {
        self.csi_driver = false;
        self
    }

    /// With further CRDs from `e2e/fixtures`.
    #[must_use]
    pub fn fixture(mut self, folder: &'static str) -> Self {
        self.fixtures.push(folder);
        self
    }

    /// With an object that exists before the components start.
    #[must_use]
    pub fn object(mut self, namespace: &str, object: impl Into<Value>) -> Self {
        let mut object = object.into();
        if !namespace.is_empty() {
            crate::json::merge(&mut object, json!({"metadata": {"namespace": namespace}}));
        }
        self.objects.push(object);
        self
    }

    /// With other processes of runtime-ctl.
    #[must_use]
    pub fn runtime_ctl(mut self, processes: impl IntoIterator<Item = ComponentOptions>) -> Self {
        self.runtime_ctl = processes.into_iter().collect();
        self
    }

    /// With other processes of authbridge-webhook.
    #[must_use]
    pub fn webhook(mut self, processes: impl IntoIterator<Item = ComponentOptions>) -> Self {
        self.webhook = processes.into_iter().collect();
        self
    }

    /// With this platform configuration.
    #[must_use]
    pub fn platform(mut self, yaml: &str) -> Self {
        self.platform = Some(yaml.to_owned());
        self
    }

    /// With these feature gates.
    #[must_use]
    pub fn gates(mut self, yaml: &str) -> Self {
        self.gates = Some(yaml.to_owned());
        self
    }
}

/// runtime-ctl as the scenarios want it: rollouts are not limited.
pub fn runtime_ctl() -> ComponentOptions {
    ComponentOptions::new(RUNTIME_CTL).args(["--rollout-qps=0"])
}

/// authbridge-webhook with certificates of its own.
pub fn webhook() -> ComponentOptions {
    ComponentOptions::new(WEBHOOK)
}

/// A cluster with the suite installed.
pub struct Suite {
    cluster: Cluster,
    config: TempDir,
    runtime_ctl: Vec<Component>,
    webhook: Vec<Component>,
    _permit: Option<SemaphorePermit<'static>>,
}

/// The shared cluster, in the hands of one test.
pub struct Shared {
    suite: Arc<Suite>,
    _permit: SemaphorePermit<'static>,
}

impl Deref for Shared {
    type Target = Suite;

    fn deref(&self) -> &Suite {
        &self.suite
    }
}

impl Suite {
    /// The cluster that tests share, each in its own namespace. It has SPIRE's CSIDriver and the CRDs of
    /// cert-manager; nothing global may be changed in it.
    pub async fn shared() -> Result<Shared> {
        let permit = SHARING.acquire().await.context("waiting for other tests of the shared cluster")?;
        let started = SHARED.get_or_init(|| async {
            let options =
                Options::default().fixture("cert-manager").object("", objects::open_crd(kinds::AGENT));
            Self::start(options, None).await.map(Arc::new).map_err(|error| format!("{error:#}"))
        });
        let suite = started.await.clone().map_err(|error| anyhow!("the shared cluster: {error}"))?;
        Ok(Shared { suite, _permit: permit })
    }

    /// A cluster of a test's own. It ends when the value is dropped.
    pub async fn own(options: Options) -> Result<Self> {
        let permit = OWN.acquire().await.context("waiting for another test's cluster to end")?;
        Self::start(options, Some(permit)).await
    }

    /// A cluster that lives as long as the test program, beside those of the tests: it takes no test's place.
    pub(crate) async fn beside_tests(options: Options) -> Result<Self> {
        Self::start(options, None).await
    }

    async fn start(options: Options, permit: Option<SemaphorePermit<'static>>) -> Result<Self> {
        let packages: Vec<&str> = [(RUNTIME_CTL, &options.runtime_ctl), (WEBHOOK, &options.webhook)]
            .iter()
            .filter(|(_, processes)| !processes.is_empty())
            .map(|(name, _)| *name)
            .collect();
        let profile = options.cluster.profile;
        // Together: cargo works on both at the same time.
        tokio::task::spawn_blocking(move || local_cluster::components::build(&packages, profile))
            .await
            .context("building the components")??;
        let cluster = Cluster::start(options.cluster).await?;
        let mut suite = Self {
            cluster,
            config: tempfile::tempdir().context("a directory for the configuration files")?,
            runtime_ctl: Vec::new(),
            webhook: Vec::new(),
            _permit: permit,
        };
        let global = suite.global().await?;
        if options.crds {
            suite.cluster.install_crds().await?;
        }
        for folder in options.fixtures {
            suite.cluster.install_crds_from(&fixture(folder)).await?;
        }
        global.create(objects::named(kinds::NAMESPACE, OPERATOR_NAMESPACE)).await?;
        if options.csi_driver {
            global.create(objects::spiffe_csi_driver()).await?;
        }
        std::fs::create_dir(suite.config.path().join("gates")).context("a directory for the gates file")?;
        if let Some(yaml) = &options.platform {
            suite.set_platform(yaml).await?;
        }
        if let Some(yaml) = &options.gates {
            suite.set_gates(yaml).await?;
        }
        for object in options.objects {
            let created = global.other(object.text("/metadata/namespace")).create(object).await?;
            if created.text("/kind") == kinds::CRD.kind {
                let served = |crd: &Value| crd.condition("Established").status == "True";
                global
                    .until(READY_WITHIN, kinds::CRD, created.name(), "the CRD to be served", served)
                    .await?;
            }
        }
        for process in options.webhook {
            suite.start_webhook(process).await?;
        }
        for process in options.runtime_ctl {
            suite.start_runtime_ctl(process).await?;
        }
        if options.wait_ready {
            for component in suite.webhook.iter().chain(&suite.runtime_ctl) {
                component.wait_ready(READY_WITHIN).await?;
            }
        }
        Ok(suite)
    }

    /// Starts another process of runtime-ctl; its index.
    pub async fn start_runtime_ctl(&mut self, process: ComponentOptions) -> Result<usize> {
        let process = process.args([format!("--feature-gates-path={}", self.gates_file().display())]);
        self.runtime_ctl.push(Component::start(&self.cluster, process).await?);
        Ok(self.runtime_ctl.len() - 1)
    }

    /// Starts another process of authbridge-webhook; its index. The first one is registered.
    pub async fn start_webhook(&mut self, process: ComponentOptions) -> Result<usize> {
        let process = process.args([
            format!("--config-path={}", self.platform_file().display()),
            format!("--feature-gates-path={}", self.gates_file().display()),
        ]);
        let component = Component::start(&self.cluster, process).await?;
        if self.webhook.is_empty() {
            let url = format!("https://127.0.0.1:{}", component.webhook_port()?);
            self.cluster.register_webhook(&url, None).await?;
        }
        self.webhook.push(component);
        Ok(self.webhook.len() - 1)
    }

    /// The control plane.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// A process of runtime-ctl.
    pub fn runtime_ctl(&self, index: usize) -> Result<&Component> {
        self.runtime_ctl.get(index).context("no such process of runtime-ctl")
    }

    /// A process of authbridge-webhook.
    pub fn webhook(&self, index: usize) -> Result<&Component> {
        self.webhook.get(index).context("no such process of authbridge-webhook")
    }

    /// A client with admin rights, for this test's async runtime.
    pub async fn client(&self) -> Result<Client> {
        self.cluster.client().await
    }

    /// Objects outside namespaces, as admin.
    pub async fn global(&self) -> Result<Ns> {
        Ok(Ns::cluster(self.client().await?))
    }

    /// The suite's own namespace, as admin.
    pub async fn operator(&self) -> Result<Ns> {
        Ok(Ns::new(self.client().await?, OPERATOR_NAMESPACE))
    }

    /// A fresh namespace with these labels (a JSON object or null), as admin.
    pub async fn namespace(&self, name: &str, labels: Value) -> Result<Ns> {
        let global = self.global().await?;
        global
            .create(objects::named(kinds::NAMESPACE, name).with(json!({"metadata": {"labels": labels}})))
            .await?;
        let ns = global.other(name);
        // Pods need it, and without controllers nobody would make it.
        if self.cluster.options().controller_manager {
            ns.until(
                Duration::from_secs(20),
                kinds::SERVICE_ACCOUNT,
                "default",
                "its ServiceAccount",
                |_| true,
            )
            .await?;
        }
        Ok(ns)
    }

    /// A fresh namespace as most webhook scenarios want it: enabled, with Keycloak's address and realm.
    pub async fn team(&self, name: &str) -> Result<Ns> {
        let ns = self.namespace(name, json!({"kagenti-enabled": "true"})).await?;
        ns.create(objects::config_map("authbridge-config", keycloak())).await?;
        Ok(ns)
    }

    /// Requests of one of the suite's ServiceAccounts since a mark of [`Cluster::audit`] that changed objects; Events,
    /// Leases and reviews of access are no objects of anybody.
    pub fn object_writes(&self, mark: Mark, service_account: &str) -> Result<Vec<ApiRequest>> {
        let noise = ["events", "leases", "tokenreviews", "subjectaccessreviews"];
        self.cluster.audit()?.since(mark, |request| {
            request.short_user() == service_account
                && request.is_write()
                && !noise.contains(&request.resource.as_str())
        })
    }

    /// Calls to an admission server past the API server.
    pub async fn admission(&self, index: usize) -> Result<Admission> {
        Admission::new(&self.global().await?, self.webhook(index)?.webhook_port()?).await
    }

    /// Replaces the platform configuration: the ConfigMap, and the file a kubelet would make of it.
    pub async fn set_platform(&self, yaml: &str) -> Result<()> {
        replace_file(&self.platform_file(), yaml)?;
        self.set_config_map("kagenti-platform-config", "config.yaml", yaml).await
    }

    /// Replaces the feature gates: the ConfigMap, and the file a kubelet would make of it.
    pub async fn set_gates(&self, yaml: &str) -> Result<()> {
        replace_file(&self.gates_file(), yaml)?;
        self.set_config_map("kagenti-feature-gates", "feature-gates.yaml", yaml).await
    }

    async fn set_config_map(&self, name: &str, key: &str, yaml: &str) -> Result<()> {
        let object = objects::config_map(name, json!({key: yaml}))
            .label("app.kubernetes.io/name", "kagenti-operator-chart")
            .label("app.kubernetes.io/managed-by", "Helm");
        self.operator().await?.apply(object).await.map(drop)
    }

    /// The file that `--config-path` of authbridge-webhook names.
    pub fn platform_file(&self) -> PathBuf {
        self.config.path().join("config.yaml")
    }

    /// The file that `--feature-gates-path` of both components names.
    pub fn gates_file(&self) -> PathBuf {
        self.config.path().join("gates").join("feature-gates.yaml")
    }
}

/// Data of an `authbridge-config` with an identity provider.
pub fn keycloak() -> Value {
    json!({"KEYCLOAK_URL": "http://keycloak.keycloak.svc:8080", "KEYCLOAK_REALM": "kagenti"})
}

/// A folder of `e2e/fixtures`.
pub fn fixture(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(folder)
}

/// The CRD of Sandboxes with one version only: the other needs a conversion webhook.
pub fn sandbox_crd(version: &str) -> Result<Value> {
    let path = fixture("agent-sandbox").join("agents.x-k8s.io_sandboxes.yaml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut crd: Value = serde_saphyr::from_str(&text).context("reading the CRD")?;
    crate::json::merge(&mut crd, json!({"spec": {"conversion": {"strategy": "None", "webhook": null}}}));
    let versions = crd.pointer_mut("/spec/versions").and_then(Value::as_array_mut).context("versions")?;
    versions.retain(|found| found.text("/name") == version);
    crate::json::merge(versions.first_mut().context("such a version")?, json!({"storage": true}));
    Ok(crd)
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Readers see the old or the new content, never half of it.
fn replace_file(path: &Path, content: &str) -> Result<()> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, content).with_context(|| format!("writing {}", temporary.display()))?;
    std::fs::rename(&temporary, path).with_context(|| format!("replacing {}", path.display()))
}
