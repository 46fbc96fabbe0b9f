//! A cluster with agents whose Pods run, a real Keycloak behind a proxy that counts, and client-registration-ctl, which
//! does not run yet.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::exposition::sum;
use e2e::services::registration::{ADMIN_NAMESPACE, ADMIN_SECRET, COMPONENT, REALM};
use e2e::services::{Account, Proxy, Realm, agents};
use e2e::suite::{Options, Suite, WEBHOOK};
use e2e::{Json as _, Ns, kinds, objects, secs, wait_for};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use local_cluster::services::{Keycloak, KeycloakOptions, preflight};
use local_cluster::{ClusterOptions, Component, ComponentOptions, Profile};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::calls::Calls;
use crate::report::{Report, Unit};
use crate::scene;

/// Where SPIRE's trust bundle would be; the chart grants to read it.
const SPIRE_NAMESPACE: &str = "zero-trust-workload-identity-manager";
const CREDENTIALS: &str = "app.kubernetes.io/managed-by=kagenti-operator";
/// Logins with delivered credentials that are tried.
const LOGINS: usize = 5;

pub(super) struct Place {
    pub(super) suite: Suite,
    pub(super) keycloak: Keycloak,
    pub(super) realm: Realm,
    pub(super) proxy: Proxy,
    pub(super) space: Ns,
    pub(super) process: Component,
    pub(super) secrets: Watched,
    count: usize,
}

impl Place {
    /// The webhook is active, as in an installation: it names the Secret on the Pods. Agents say by their labels what
    /// they are, so that nobody but client-registration-ctl works on them.
    pub(super) async fn start(count: usize, qps: Option<u32>) -> Result<Self> {
        preflight::require().await?;
        let cluster = ClusterOptions {
            nodes: 4,
            controller_qps: Some(5_000),
            profile: Profile::Release,
            ..ClusterOptions::default()
        };
        let options = Options {
            cluster,
            webhook: vec![ComponentOptions::new(WEBHOOK)],
            ..Options::default().without_runtime_ctl().without_csi_driver()
        };
        // Before the clock starts.
        let profile = options.cluster.profile;
        tokio::task::spawn_blocking(move || local_cluster::components::build(&[COMPONENT, WEBHOOK], profile))
            .await
            .context("building the components")??;
        eprintln!("starting a control plane, authbridge-webhook and Keycloak");
        let suite = Suite::own(options).await?;
        suite.namespace(SPIRE_NAMESPACE, json!({})).await?;
        let keycloak = Keycloak::start(suite.cluster(), KeycloakOptions::default()).await?;
        let realm = Realm::create(&keycloak, REALM).await?;
        let proxy = Proxy::before(keycloak.url()).await?;
        give_login(&suite, &realm.least_rights().await?).await?;
        let mut component = ComponentOptions::new(COMPONENT).args([
            format!("--keycloak-url={}", proxy.url()),
            format!("--keycloak-realm={REALM}"),
            "--keycloak-admin-auth=client-credentials".to_owned(),
        ]);
        component = component.args(qps.map(|qps| format!("--keycloak-qps={qps}")));
        let space = suite.namespace("bench", json!({"kagenti-enabled": "true"})).await?;
        space.create(agents::authbridge_config(&proxy.url(), REALM)).await?;
        let process = Component::start(suite.cluster(), component).await?;
        // Once per namespace, and no matter of agents.
        let filled = |config: &serde_json::Value| config.label("kagenti.io/defaults").is_some();
        space.until(secs(60), kinds::CONFIG_MAP, "authbridge-config", "the other defaults", filled).await?;
        process.terminate().await?;
        let name = |index: usize| format!("agent-{index:05}");
        scene::create(&space, "Deployments", count, |index| agents::agent(&name(index)).build()).await?;
        scene::create(&space, "AgentRuntimes", count, |index| {
            objects::agent_runtime(&name(index), &name(index)).build()
        })
        .await?;
        scene::until_exist::<Pod>(&space, count, Duration::from_secs(600)).await?;
        let secrets = Watched::start(&space);
        Ok(Self { suite, keycloak, realm, proxy, space, process, secrets, count })
    }

    /// Requests to Keycloak since a mark of the proxy.
    pub(super) fn calls(&self, mark: usize) -> Calls {
        Calls::count(&self.proxy.since(mark), &format!("/admin/realms/{REALM}/"))
    }

    /// Waits until every AgentRuntime says so, and the component has nothing more to do; the time until the former.
    pub(super) async fn until_registered(&self, start: Instant, limit: Duration) -> Result<Duration> {
        let conditions = ["ClientRegistered", "AudienceScopeReady"];
        let reached = scene::until_all(&self.space, conditions, self.count, start, limit).await;
        let [registered, attached] = reached.with_context(|| self.process.log_tail())?;
        // The last pass may look at Pods after it wrote the condition.
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(registered.max(attached))
    }

    /// Waits until the component itself counts every agent as registered.
    pub(super) async fn until_counted(&self, limit: Duration) -> Result<()> {
        wait_for(limit, "every agent to be known as registered", async || {
            let page = self.process.metrics_text().await?;
            let known = sum(&page, "client_registration_workloads", &[("state", "registered")]);
            ensure!(known >= self.count as f64, "{known} are");
            Ok(Some(()))
        })
        .await
        .with_context(|| self.process.log_tail())
    }

    /// Compares what was delivered with what Keycloak has.
    pub(super) async fn check(&self) -> Result<Checked> {
        let mut delivered = BTreeMap::new();
        for secret in self.space.list(kinds::SECRET, CREDENTIALS).await? {
            let account = agents::account(&secret)?;
            delivered.insert(account.id.clone(), account);
        }
        let ids = self.realm.agents().await?;
        let clients = self.realm.read("/clients").await?;
        let scope_of = |id: &str| format!("agent-{}-aud", id.replace('/', "-"));
        let named =
            |client: &serde_json::Value, scope: &str| client.texts("/defaultClientScopes").contains(&scope);
        let platform = self.realm.existing(&self.realm.platform().id).await?;
        let (mut wrong, mut unattached) = (0, 0);
        for (id, account) in &delivered {
            let mut known = clients.items("").iter().filter(|client| client.text("/clientId") == id);
            let scope = scope_of(id);
            match (known.next(), known.next()) {
                (Some(client), None) => {
                    wrong += usize::from(client.text("/secret") != account.secret);
                    unattached += usize::from(!named(client, &scope) || !named(&platform, &scope));
                }
                _ => wrong += 1,
            }
        }
        for account in delivered.values().step_by((delivered.len() / LOGINS).max(1)) {
            let token = self.realm.token(account).await?;
            self.realm.accepts(&token, &account.id).await.with_context(|| account.id.clone())?;
        }
        Ok(Checked {
            missing: self.count.saturating_sub(delivered.len()),
            clients: ids.len().saturating_sub(self.count),
            scopes: self.realm.audience_scopes().await?.len().saturating_sub(self.count),
            wrong,
            unattached,
            versions: self.secrets.versions(),
            half_written: self.secrets.half_written(),
        })
    }
}

/// The account that client-registration-ctl uses.
async fn give_login(suite: &Suite, account: &Account) -> Result<()> {
    let ns = suite.namespace(ADMIN_NAMESPACE, json!({})).await?;
    let data = json!({"client-id": account.id, "client-secret": account.secret});
    ns.create(objects::named(kinds::SECRET, ADMIN_SECRET).with(json!({"stringData": data}))).await.map(drop)
}

/// What was found at the end.
pub(super) struct Checked {
    missing: usize,
    clients: usize,
    scopes: usize,
    wrong: usize,
    unattached: usize,
    versions: usize,
    half_written: usize,
}

impl Checked {
    pub(super) fn tell(&self, report: &mut Report) {
        for (figure, found) in [
            ("agents without credentials", self.missing),
            ("clients beyond one per agent (Admin API)", self.clients),
            ("audience scopes beyond one per agent", self.scopes),
            ("Secrets that are not what Keycloak has", self.wrong),
            ("agents whose scope is not attached", self.unattached),
            ("versions of Secrets with a key empty or missing", self.half_written),
        ] {
            report.bound(figure, found as f64, &Unit::WHOLE, 0.0, 0.0, "-");
        }
        report.note("  versions that a watch saw", self.versions);
    }
}

/// Every version of every credentials Secret, as a watch delivers them.
pub(super) struct Watched {
    seen: Arc<Mutex<Versions>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Versions {
    count: usize,
    half_written: usize,
    names: BTreeSet<String>,
}

impl Watched {
    fn start(space: &Ns) -> Self {
        let api = Api::<Secret>::namespaced(space.client().clone(), space.name());
        let seen: Arc<Mutex<Versions>> = Arc::default();
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            let config = watcher::Config::default().labels(CREDENTIALS);
            let mut events = pin!(watcher(api, config).default_backoff());
            while let Some(event) = events.next().await {
                let Ok(Event::Apply(secret) | Event::InitApply(secret)) = event else { continue };
                let data = secret.data.unwrap_or_default();
                let full = |key: &str| data.get(key).is_some_and(|value| !value.0.is_empty());
                let mut versions = locked(&shared);
                versions.count += 1;
                if full("client-id.txt") && full("client-secret.txt") {
                    versions.names.extend(secret.metadata.name);
                } else {
                    versions.half_written += 1;
                }
            }
        });
        Self { seen, task }
    }

    /// Agents that have complete credentials.
    pub(super) fn delivered(&self) -> usize {
        locked(&self.seen).names.len()
    }

    fn versions(&self) -> usize {
        locked(&self.seen).count
    }

    fn half_written(&self) -> usize {
        locked(&self.seen).half_written
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
