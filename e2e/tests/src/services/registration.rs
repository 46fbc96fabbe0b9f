//! client-registration-ctl at work on a real Keycloak.
//!
//! Long times are shortened (decision 30): `--resync-period` from 1 h to 10 s and `--unregister-grace` from 5 min to
//! 1 s, by a factor of about 300.

mod leaks;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use k8s_openapi::api::rbac::v1::PolicyRule;
use local_cluster::{Component, ComponentOptions};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use self::leaks::Forbidden;
use super::agents;
use super::proxy::Proxy;
use super::realm::{Account, Realm};
use super::shared::{Servers, bare, keycloak, without_pods};
use crate::suite::{Options, Suite};
use crate::{Ns, kinds, objects};

/// Package, program, chart and ServiceAccount.
pub const COMPONENT: &str = "client-registration-ctl";
/// Where the Secret with the administrator's credentials is.
pub const ADMIN_NAMESPACE: &str = "keycloak";
/// Where SPIRE's trust bundle would be.
const SPIRE_NAMESPACE: &str = "zero-trust-workload-identity-manager";
/// Name of the Secret with the administrator's credentials.
pub const ADMIN_SECRET: &str = "keycloak-initial-admin";
/// The platform's realm.
pub const REALM: &str = "kagenti";
/// By then every registration was checked in full once more (a shortened `--resync-period`, +20 %, and the work).
pub const NEXT_CHECK: Duration = Duration::from_secs(45);
const RESYNC: &str = "--resync-period=10s";
const GRACE: &str = "--unregister-grace=1s";
const READY_WITHIN: Duration = Duration::from_secs(60);

static SHARED: OnceCell<Result<Arc<Registration>, String>> = OnceCell::const_new();

/// How the component logs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Login {
    /// By a service account of the realm with the one role it needs (scenario 22).
    #[default]
    LeastRights,
    /// By a service account without any role.
    NoRights,
    /// By the administrator's password.
    Password,
    /// There is no Secret; the test makes it, see [`Registration::give_login`].
    Later,
}

/// What a [`Registration`] of a test's own looks like.
pub struct Setup {
    /// Name of the realm.
    pub realm: &'static str,
    /// The cluster.
    pub suite: Options,
    /// Further flags; for flags that are given twice the last one counts.
    pub args: Vec<String>,
    /// How it logs in.
    pub login: Login,
    /// Put a [`Proxy`] between the component and Keycloak.
    pub proxied: bool,
    /// Start without `--keycloak-url`.
    pub without_url: bool,
    /// Watch these namespaces only, by Roles; they are made. Secrets are read by name, as the Roles want it.
    pub namespaces: Vec<&'static str>,
}

impl Setup {
    /// A bare cluster; the realm has this name.
    pub fn new(realm: &'static str) -> Self {
        Self {
            realm,
            suite: bare(),
            args: Vec::new(),
            login: Login::default(),
            proxied: false,
            without_url: false,
            namespaces: Vec::new(),
        }
    }

    /// On a cluster that starts sooner, but where no Pod runs.
    #[must_use]
    pub fn without_pods(self) -> Self {
        self.suite(without_pods())
    }

    /// With another `--resync-period`, in seconds: tests that wait for full checks shorten it, those with many agents
    /// stretch it.
    #[must_use]
    pub fn resync(self, seconds: u32) -> Self {
        self.args([format!("--resync-period={seconds}s")])
    }

    /// In these namespaces only: Roles instead of a ClusterRole, and without the right to list or watch Secrets.
    #[must_use]
    pub fn namespaced(mut self, namespaces: impl IntoIterator<Item = &'static str>) -> Self {
        self.namespaces.extend(namespaces);
        // Namespace `kube-system` cannot be read.
        self.args(["--watch-secrets=false", "--cluster-id=cluster-of-the-test"])
    }

    /// Adds flags.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// With another cluster.
    #[must_use]
    pub fn suite(mut self, suite: Options) -> Self {
        self.suite = suite;
        self
    }

    /// With another login.
    #[must_use]
    pub fn login(mut self, login: Login) -> Self {
        self.login = login;
        self
    }

    /// With a proxy before Keycloak.
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }
}

/// A running component with its realm.
pub struct Registration {
    suite: Arc<Suite>,
    realm: Realm,
    login: Account,
    url: String,
    proxy: Option<Proxy>,
    component: Component,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.ends_clean();
    }
}

/// A component that tests share, in the hands of one of them.
pub struct Shared(Arc<Registration>);

impl Deref for Shared {
    type Target = Registration;

    fn deref(&self) -> &Registration {
        &self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.ends_clean();
    }
}

impl Deref for Registration {
    type Target = Suite;

    fn deref(&self) -> &Suite {
        &self.suite
    }
}

impl Registration {
    /// The component that tests share, in realm [`REALM`], with the least rights in Keycloak and in the cluster. Each test keeps to its own namespaces.
    pub async fn shared() -> Result<Shared> {
        let started = SHARED.get_or_init(|| async {
            let start = async {
                let suite = Servers::suite().await?;
                Self::start(suite, Setup::new(REALM)).await.map(Arc::new)
            };
            start.await.map_err(|error| format!("{error:#}"))
        });
        let started = started.await.clone();
        started.map(Shared).map_err(|error| anyhow!("the shared client-registration-ctl: {error}"))
    }

    /// Starts a component for a group of tests, with the first of them.
    pub async fn once(
        cell: &'static OnceCell<Result<Arc<Self>, String>>,
        setup: fn() -> Setup,
    ) -> Result<Shared> {
        let started = cell.get_or_init(|| async {
            let start = async {
                let mut setup = setup();
                let options = std::mem::take(&mut setup.suite);
                let suite = Arc::new(Suite::beside_tests(options).await?);
                Self::start(suite, setup).await.map(Arc::new)
            };
            start.await.map_err(|error: anyhow::Error| format!("{error:#}"))
        });
        let started = started.await.clone();
        started.map(Shared).map_err(|error| anyhow!("the client-registration-ctl of a group: {error}"))
    }

    /// A component of a test's own, in a cluster and a realm of its own.
    pub async fn own(mut setup: Setup) -> Result<Self> {
        let options = std::mem::take(&mut setup.suite);
        let suite = Arc::new(Suite::own(options).await?);
        Self::start(suite, setup).await
    }

    async fn start(suite: Arc<Suite>, setup: Setup) -> Result<Self> {
        let keycloak = keycloak().await?;
        let realm = Realm::create(&keycloak, setup.realm).await?;
        let proxy = if setup.proxied { Some(Proxy::before(keycloak.url()).await?) } else { None };
        let url = proxy.as_ref().map_or_else(|| keycloak.url().to_owned(), Proxy::url);
        let global = suite.global().await?;
        // The chart grants what is read in these two.
        for namespace in [ADMIN_NAMESPACE, SPIRE_NAMESPACE] {
            global.create(objects::named(kinds::NAMESPACE, namespace)).await?;
        }
        let (auth, login) = match setup.login {
            Login::LeastRights | Login::Later => ("client-credentials", realm.least_rights().await?),
            Login::NoRights => ("client-credentials", realm.registrar().await?),
            Login::Password => {
                let id = keycloak.admin_username().to_owned();
                ("password", Account { id, secret: keycloak.admin_password().to_owned() })
            }
        };
        if setup.login != Login::Later {
            write_login(&global.other(ADMIN_NAMESPACE), setup.login, &login).await?;
        }
        let known = (!setup.without_url).then(|| format!("--keycloak-url={url}"));
        let args = [
            format!("--keycloak-realm={}", setup.realm),
            format!("--keycloak-admin-auth={auth}"),
            "--log-level=debug".to_owned(),
            "--keycloak-qps=200".to_owned(),
            RESYNC.to_owned(),
            GRACE.to_owned(),
        ];
        let mut options = ComponentOptions::new(COMPONENT).args(known).args(args).args(setup.args);
        if !setup.namespaces.is_empty() {
            for name in &setup.namespaces {
                suite.namespace(name, Value::Null).await?;
            }
            options = options.namespaced(setup.namespaces).edit_rights(|rights| {
                let secrets = |name: &String| name == "secrets";
                let about = |rule: &&mut PolicyRule| rule.resources.iter().flatten().any(secrets);
                for rule in rights.scoped.iter_mut().filter(about) {
                    rule.verbs.retain(|verb| verb != "list" && verb != "watch");
                }
            });
        }
        let component = Component::start(suite.cluster(), options).await?;
        component.wait_ready(READY_WITHIN).await?;
        Ok(Self { suite, realm, login, url, proxy, component })
    }

    /// The realm.
    pub fn realm(&self) -> &Realm {
        &self.realm
    }

    /// The process.
    pub fn component(&self) -> &Component {
        &self.component
    }

    /// What stands between the component and Keycloak.
    pub fn proxy(&self) -> Result<&Proxy> {
        self.proxy.as_ref().context("this test has no proxy")
    }

    /// What namespaces and the component call Keycloak.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Makes the Secret with the credentials.
    pub async fn give_login(&self) -> Result<()> {
        write_login(&self.global().await?.other(ADMIN_NAMESPACE), Login::LeastRights, &self.login).await
    }

    /// A fresh namespace whose `authbridge-config` names Keycloak and the realm.
    pub async fn place(&self, name: &str) -> Result<Ns> {
        let ns = self.namespace(name, Value::Null).await?;
        ns.create(agents::authbridge_config(&self.url, self.realm.name())).await?;
        Ok(ns)
    }

    /// A registered agent: a Deployment, its AgentRuntime for the conditions, and its credentials.
    pub async fn registered(&self, ns: &Ns, name: &str) -> Result<Account> {
        // The AgentRuntime first: a condition that only a full look finds out would come with the next one otherwise.
        ns.create(objects::agent_runtime(name, name)).await?;
        ns.create(agents::agent(name)).await?;
        let secret = agents::until_credentials(ns, Duration::from_secs(30), name).await?;
        agents::account(&secret)
    }

    /// Scenario 23, at the end of a test: fails when a secret of the realm, one of `further` or anything that looks like
    /// a token is in the component's log, arguments or metrics, or in an Event or AgentRuntime of the cluster.
    pub async fn keeps_secrets(&self, further: &[String]) -> Result<()> {
        let forbidden = self.forbidden(further).await;
        self.check_process(&forbidden).await?;
        let global = self.global().await?;
        for kind in [kinds::EVENT, kinds::AGENT_RUNTIME, kinds::DEPLOYMENT, kinds::CONFIG_MAP] {
            let all = global.list(kind, "").await?;
            forbidden.check(kind.kind, &Value::from(all).to_string())?;
        }
        Ok(())
    }

    /// What it knows of that must not be seen; a test may have removed the realm.
    async fn forbidden(&self, further: &[String]) -> Forbidden {
        let mut forbidden = Forbidden::default();
        forbidden.secrets(self.realm.secrets().await.unwrap_or_default());
        forbidden.secrets(further.iter().cloned());
        forbidden.login(&self.login);
        forbidden
    }

    async fn check_process(&self, forbidden: &Forbidden) -> Result<()> {
        forbidden.check("its log", &self.component.log())?;
        if self.component.is_running() {
            let arguments = std::fs::read(format!("/proc/{}/cmdline", self.component.pid()));
            forbidden.check("its arguments", &String::from_utf8_lossy(&arguments.unwrap_or_default()))?;
            forbidden.check("its metrics", &self.component.metrics_text().await.unwrap_or_default())?;
        }
        Ok(())
    }

    /// The part of [`Self::keeps_secrets`] that needs no cluster, at the end of every test, whether it asks for it or not.
    fn ends_clean(&self) {
        if std::thread::panicking() {
            return;
        }
        let check = || {
            // The runtime of the test is blocked meanwhile.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { self.check_process(&self.forbidden(&[]).await).await })
        };
        let checked = std::thread::scope(|scope| scope.spawn(check).join());
        assert!(matches!(checked, Ok(Ok(()))), "scenario 23: {checked:?}");
    }

    /// Waits for a status and reason of condition `ClientRegistered` (`True/Registered`).
    pub async fn until_registered(
        &self,
        ns: &Ns,
        limit: Duration,
        runtime: &str,
        short: &str,
    ) -> Result<Value> {
        ns.until_condition(limit, runtime, "ClientRegistered", short).await
    }
}

/// The Secret with the component's own credentials (client-registration §2.1).
async fn write_login(ns: &Ns, login: Login, account: &Account) -> Result<()> {
    let keys =
        if login == Login::Password { ["username", "password"] } else { ["client-id", "client-secret"] };
    let [id, secret] = keys;
    let data = json!({id: account.id, secret: account.secret});
    ns.create(objects::named(kinds::SECRET, ADMIN_SECRET).with(json!({"stringData": data}))).await.map(drop)
}
