//! What every pass works with: handles, indexes and the little that is remembered between passes.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use api_types::gates::FeatureGates;
use controller_kit::{
    controller::{Common, Controller, Handles},
    limiter::RolloutLimiter,
    memory::Memory,
    surroundings::Surroundings,
};
use rest_client::{
    BaseUrl, RestClient,
    ca::CaFile,
    options::{ClientOptions, Rate},
};
use tokio::time::Instant;

use crate::{
    authbridge_config,
    conditions::Audience,
    error::Error,
    events::Announcer,
    identity::PlatformDomain,
    index::Indexes,
    keycloak::{
        AdminSecret, Keycloak,
        session::{Closer, sessions},
        token::Tokens,
    },
    leaving,
    metrics::{Calls, OwnMetrics},
    platform_clients::PlatformClients,
    registration,
    secret::SecretMeta,
    settings::{COMPONENT, Settings},
    sharing::Turns,
    sources::Source,
    trust::TrustRules,
    workload::{Unit, WorkloadKey},
};

/// What the queue holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// Register workloads, or let them go (§12).
    Unit(Unit),
    /// Finish the deletion of a Secret: namespace and name (§10).
    Secret(String, String),
    /// Fill the ConfigMap of a namespace (§13).
    Namespace(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit(unit) => write!(f, "workload {unit}"),
            Self::Secret(namespace, name) => write!(f, "Secret {namespace}/{name}"),
            Self::Namespace(name) => write!(f, "Namespace {name}"),
        }
    }
}

/// When a registration was last compared with Keycloak.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Version of the Secret then.
    pub version: String,
    /// When to compare again.
    pub due: Instant,
}

/// Handles and memories of the process.
pub struct Context {
    common: Common<Key, Source>,
    /// Flags of this component.
    pub settings: Settings,
    /// What the watches have seen.
    pub index: Arc<Indexes>,
    /// Gates, platform and namespaces.
    pub around: Arc<Surroundings>,
    /// The Keycloaks.
    pub keycloak: Keycloak,
    /// The HTTP client below it.
    pub rest: RestClient,
    /// Platform clients and their scopes.
    pub platform_clients: PlatformClients,
    /// Tokens for restarts.
    pub limiter: RolloutLimiter<WorkloadKey>,
    /// Events.
    pub announcer: Announcer,
    /// Metrics.
    pub metrics: OwnMetrics,
    /// Registrations that were compared with Keycloak.
    pub checked: Memory<Unit, Checked>,
    /// Workloads whose Secret somebody else has, without our label.
    pub taken: Memory<Unit, ()>,
    /// Audience scopes that are not ready.
    pub audience_pending: Memory<Unit, ()>,
    /// What was last found out about audience scopes.
    pub audience: Memory<Unit, Audience>,
    /// Since when a workload is no agent any more.
    pub leaving: Memory<Unit, Instant>,
    /// Secrets that are gone while their client is not, where they are not watched.
    pub left: Memory<Unit, leaving::Left>,
    /// Since when an earlier client of a workload cannot be deleted.
    pub earlier: Memory<Unit, Instant>,
    /// Clients that passes are at work on.
    pub turns: Turns,
    /// Workloads whose template named its Secret when it was last looked at.
    pub named: Memory<WorkloadKey, ()>,
    /// When that name was last put back into a template.
    pub put_back: Memory<WorkloadKey, Instant>,
    /// Since when the first Pod of a workload is waited for.
    pub waiting_for_pods: Memory<WorkloadKey, Instant>,
    /// Highest revision of credentials that were ever delivered.
    pub revisions: Memory<Unit, u64>,
    trust: RwLock<Arc<TrustRules>>,
    public_url: RwLock<Option<BaseUrl>>,
    public_url_looked: AtomicBool,
    domain: RwLock<PlatformDomain>,
    cluster_id: RwLock<Option<String>>,
}

/// What flags and files make; all that can be wrong with them is found here, before the process starts.
pub struct Prepared {
    settings: Settings,
    trust: TrustRules,
    calls: Calls,
    rest: RestClient,
}

impl Prepared {
    /// Checks the flags and reads the CA file.
    ///
    /// # Errors
    /// What cannot be used, with the flag's name.
    pub fn new(settings: Settings) -> Result<Self, String> {
        settings.check()?;
        let ca = match &settings.keycloak_ca_file {
            None => None,
            Some(path) => Some(CaFile::load(path).map_err(|error| format!("--keycloak-ca-file: {error}"))?),
        };
        let calls = Calls::default();
        let options = ClientOptions {
            attempt: settings.keycloak_timeout,
            rate: Rate { qps: settings.keycloak_qps, burst: settings.keycloak_burst },
            observer: Arc::new(calls.clone()),
            ..ClientOptions::new(format!("{}/{}", COMPONENT.name, env!("CARGO_PKG_VERSION")))
        };
        let rest = RestClient::new(options, ca).map_err(|error| error.to_string())?;
        Ok(Self { trust: settings.trust(None)?, settings, calls, rest })
    }
}

impl Context {
    /// A context without anything in its indexes, and what closes the sessions of its logins.
    pub fn new(handles: Handles, prepared: Prepared) -> (Self, Closer) {
        let Prepared { settings, trust, calls, rest } = prepared;
        let limiter = RolloutLimiter::new(settings.rollout_qps, settings.rollout_burst);
        let metrics = OwnMetrics::register(&handles.metrics, &limiter, calls);
        let (opener, closer) = sessions(rest.clone());
        let admin = Arc::new(AdminSecret::new(
            &settings.keycloak_admin_secret_namespace,
            &settings.keycloak_admin_secret_name,
        ));
        let tokens = Tokens::new(rest.clone(), opener, metrics.logins.clone());
        let domain = if settings.spire_trust_domain.is_empty() {
            PlatformDomain::Looking
        } else {
            PlatformDomain::Known(settings.spire_trust_domain.to_ascii_lowercase())
        };
        let context = Self {
            keycloak: Keycloak::new(rest.clone(), tokens, admin, settings.clone()),
            rest,
            platform_clients: PlatformClients::new(settings.resync_period),
            around: Arc::new(Surroundings::new(&handles.operator_namespace)),
            announcer: Announcer::new(handles.events.reporting_as("clientregistration-controller")),
            index: Arc::default(),
            limiter,
            metrics,
            checked: Memory::default(),
            taken: Memory::default(),
            audience_pending: Memory::default(),
            audience: Memory::default(),
            leaving: Memory::default(),
            named: Memory::default(),
            put_back: Memory::default(),
            left: Memory::default(),
            earlier: Memory::default(),
            turns: Turns::default(),
            waiting_for_pods: Memory::default(),
            revisions: Memory::default(),
            trust: RwLock::new(Arc::new(trust)),
            public_url: RwLock::new(BaseUrl::parse(&settings.keycloak_public_url).ok()),
            public_url_looked: AtomicBool::new(!settings.keycloak_public_url.is_empty()),
            domain: RwLock::new(domain),
            cluster_id: RwLock::new(Some(settings.cluster_id.clone()).filter(|id| !id.is_empty())),
            common: Common::new(handles, "clientregistration"),
            settings,
        };
        context.refresh_trust();
        (context, closer)
    }

    /// Whom credentials may be shown to.
    pub fn trust(&self) -> Arc<TrustRules> {
        self.trust.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn refresh_trust(&self) {
        // The flags were checked at start, so they make rules.
        if let Ok(rules) = self.settings.trust(self.public_url().as_ref()) {
            *self.trust.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        }
    }

    /// The public URL of the platform's Keycloak.
    pub fn public_url(&self) -> Option<BaseUrl> {
        self.public_url.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes the public URL; true when that is news.
    pub fn set_public_url(&self, url: BaseUrl) -> bool {
        let news = {
            let mut known = self.public_url.write().unwrap_or_else(PoisonError::into_inner);
            let news = known.as_ref() != Some(&url);
            *known = Some(url);
            news
        };
        if news {
            self.refresh_trust();
        }
        news
    }

    /// Whether the public URL was given, or looked for once: before that no URL is called untrusted.
    pub fn looked_for_public_url(&self) -> bool {
        self.public_url_looked.load(Ordering::Acquire)
    }

    /// Notes that the first look for the public URL is over.
    pub fn note_public_url_look(&self) {
        self.public_url_looked.store(true, Ordering::Release);
    }

    /// The platform's trust domain.
    pub fn domain(&self) -> PlatformDomain {
        self.domain.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes the trust domain; true when that is news.
    pub fn set_domain(&self, domain: PlatformDomain) -> bool {
        let mut known = self.domain.write().unwrap_or_else(PoisonError::into_inner);
        let news = *known != domain;
        *known = domain;
        news
    }

    /// The mark of our clients; `None` while the UID of `kube-system` is not known.
    pub fn cluster_id(&self) -> Option<String> {
        self.cluster_id.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes the mark of our clients.
    pub fn set_cluster_id(&self, id: String) {
        *self.cluster_id.write().unwrap_or_else(PoisonError::into_inner) = Some(id);
    }

    /// The gates.
    ///
    /// # Errors
    /// [`Error::Pass`] before they were read.
    pub fn gates(&self) -> Result<FeatureGates, Error> {
        Ok(self.around.gates()?)
    }

    /// Whether a Keycloak is known, so that namespaces may be told of it (§13).
    pub fn knows_keycloak(&self) -> bool {
        !self.settings.keycloak_url.trim().is_empty() || self.keycloak.admin().version().is_some()
    }

    /// Asks for a look at workloads.
    pub fn wake(&self, unit: Unit, after: Duration) {
        self.queue.add(Key::Unit(unit), after);
    }

    /// Asks for the end of a Secret whose deletion waits for our finalizer.
    pub fn finish_soon(&self, secret: &SecretMeta) {
        if secret.deleting.is_some() && secret.finalizer {
            let key = Key::Secret(secret.key.namespace.clone(), secret.key.name.clone());
            self.queue.add(key, Duration::ZERO);
        }
    }

    /// Asks for a look at all workloads of a namespace, or (`None`) at everything, spread over a time that grows with
    /// their number.
    pub fn wake_all(&self, namespace: Option<&str>) {
        let wanted = |unit: &Unit| namespace.is_none_or(|name| name == unit.namespace).then(|| unit.clone());
        let units = self.index.workloads.links(wanted);
        let spread = Duration::from_millis(u64::try_from(units.len()).unwrap_or(u64::MAX).min(10_000));
        for unit in units {
            self.wake(unit, spread.mul_f64(fastrand::f64()));
        }
    }

    /// Asks for a look at the ConfigMap of every enabled namespace.
    pub fn wake_namespaces(&self) {
        if self.settings.enable_authbridge_config {
            for name in self.around.enabled_namespaces() {
                self.queue.add(Key::Namespace(name), Duration::ZERO);
            }
        }
    }

    /// Drops what is remembered about a unit that is gone.
    pub fn forget(&self, unit: &Unit) {
        self.checked.remove(unit);
        self.taken.remove(unit);
        self.audience_pending.remove(unit);
        self.audience.remove(unit);
        self.leaving.remove(unit);
        self.earlier.remove(unit);
        self.metrics.set_state(unit, None);
    }
}

impl Deref for Context {
    type Target = Common<Key, Source>;

    fn deref(&self) -> &Self::Target {
        &self.common
    }
}

impl Controller<Key, Source> for Context {
    type Error = Error;

    async fn pass(&self, key: &Key) -> Result<Option<Duration>, Error> {
        match key {
            Key::Unit(unit) => registration::pass(self, unit).await,
            Key::Secret(namespace, name) => leaving::finish(self, namespace, name).await,
            Key::Namespace(name) => authbridge_config::pass(self, name).await,
        }
    }
}
