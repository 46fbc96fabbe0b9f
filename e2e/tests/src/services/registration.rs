//! client-registration-ctl at work on a real Keycloak.
//!
//! Long times are shortened (decision 30): `--resync-period` from 1 h to 10 s and `--unregister-grace` from 5 min to
//! 1 s, by a factor of about 300.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use local_cluster::{Component, ComponentOptions};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::agents;
use super::proxy::Proxy;
use super::realm::{Account, Realm};
use super::shared::{Servers, bare, keycloak};
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
        }
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

impl Deref for Registration {
    type Target = Suite;

    fn deref(&self) -> &Suite {
        &self.suite
    }
}

impl Registration {
    /// The component that tests share, in realm [`REALM`], with the least rights in Keycloak and in the cluster. Each test keeps to its own namespaces.
    pub async fn shared() -> Result<Arc<Self>> {
        let started = SHARED.get_or_init(|| async {
            let start = async {
                let suite = Servers::suite().await?;
                Self::start(suite, Setup::new(REALM)).await.map(Arc::new)
            };
            start.await.map_err(|error| format!("{error:#}"))
        });
        started.await.clone().map_err(|error| anyhow!("the shared client-registration-ctl: {error}"))
    }

    /// Starts a component for a group of tests, with the first of them.
    pub async fn once(
        cell: &'static OnceCell<Result<Arc<Self>, String>>,
        setup: fn() -> Setup,
    ) -> Result<Arc<Self>> {
        let started = cell.get_or_init(|| async {
            Self::own(setup()).await.map(Arc::new).map_err(|error| format!("{error:#}"))
        });
        started.await.clone().map_err(|error| anyhow!("the client-registration-ctl of a group: {error}"))
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
        let options = ComponentOptions::new(COMPONENT).args(known).args(args).args(setup.args);
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
        ns.create(agents::agent(name)).await?;
        ns.create(objects::agent_runtime(name, name)).await?;
        let secret = agents::until_credentials(ns, Duration::from_secs(30), name).await?;
        agents::account(&secret)
    }

    /// Fails when a secret of the realm, or one of `further`, is in the component's log, arguments or metrics, or in an
    /// Event or AgentRuntime of the cluster.
    pub async fn keeps_secrets(&self, further: &[String]) -> Result<()> {
        let mut secrets = self.realm.secrets().await?;
        secrets.push(self.login.secret.clone());
        secrets.extend(further.iter().cloned());
        let global = self.global().await?;
        let arguments = std::fs::read(format!("/proc/{}/cmdline", self.component.pid())).unwrap_or_default();
        let mut places = vec![
            ("its log", self.component.log()),
            ("its arguments", String::from_utf8_lossy(&arguments).into_owned()),
            ("its metrics", self.component.metrics_text().await?),
        ];
        for kind in [kinds::EVENT, kinds::AGENT_RUNTIME, kinds::DEPLOYMENT, kinds::CONFIG_MAP] {
            let all = global.list(kind, "").await?;
            places.push((kind.kind, all.iter().map(ToString::to_string).collect()));
        }
        for (place, text) in places {
            if let Some(index) = secrets.iter().position(|secret| text.contains(secret.as_str())) {
                bail!("secret {index} of {} is in {place}", secrets.len());
            }
        }
        Ok(())
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
