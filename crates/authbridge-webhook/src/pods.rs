//! The Pod endpoint: gathers what the pure half asks for, lets it decide, writes what the Pod
//! needs, answers (webhook §4, §5).

mod report;

use std::{sync::Arc, time::Duration};

use api_types::{
    injection::{ClusterFacts, NamespaceFacts, RuntimeDocument, SkipReason},
    names::annotation,
    namespace_config::AuthbridgeConfig,
    owner::{LiveOwner, PodIdentity, Workload, group_of, needs_live_owner, workload_of},
};
use controller_kit::{events::EventRecorder, scope::Scope};
use futures::{FutureExt as _, future::BoxFuture};
use tokio::time::timeout;

use crate::{
    caches::{
        Caches,
        managed::ManagedConfigMap,
        namespaces::NamespaceConfig,
        targets::{Match, choose},
    },
    config::{Config, Snapshot},
    injection::{self, ConfigNames, DryRun, Injection, Inputs, Outcome, Pod},
    live::{Live, LiveError},
    metrics::Metrics,
    owners::{OwnerError, OwnerKind, Owners},
    review::{Answer, Request},
    server::endpoint::{Handler, Progress, Step},
    watches::Synced,
    writes::{WriteError, Writer},
};
use report::{Report, Verdict};

/// How long a call waits for caches that are being filled, before it is turned away.
const CACHE_WAIT: Duration = Duration::from_secs(2);

/// What the Pod endpoint works with: handles only.
pub struct PodEndpoint {
    /// Indexes.
    pub caches: Arc<Caches>,
    /// Platform file and gates.
    pub config: Arc<Config>,
    /// Owner look-ups.
    pub owners: Arc<Owners>,
    /// Other live reads.
    pub live: Arc<Live>,
    /// Writes.
    pub writer: Arc<Writer>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Events for users.
    pub events: EventRecorder,
    /// Namespaces this process serves.
    pub scope: Scope,
    /// Namespace of this component.
    pub operator_namespace: String,
    /// Whether the indexes are filled.
    pub synced: Synced,
}

impl std::fmt::Debug for PodEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodEndpoint").finish_non_exhaustive()
    }
}

/// Something that could not be read or written; the Pod is denied with 500 (webhook §4.6).
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Read(#[from] LiveError),
    #[error(transparent)]
    Owner(#[from] OwnerError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("namespace {0} does not exist")]
    NoNamespace(String),
}

impl Handler for PodEndpoint {
    fn handle(&self, request: Request, progress: Progress) -> BoxFuture<'_, Answer> {
        async move { self.admit(&request, &progress).await }.boxed()
    }
}

impl PodEndpoint {
    async fn admit(&self, request: &Request, progress: &Progress) -> Answer {
        let is_pod =
            request.kind.group.is_empty() && request.kind.version == "v1" && request.kind.kind == "Pod";
        let sub_resource = request.sub_resource.as_deref().unwrap_or_default();
        if !is_pod
            || !sub_resource.is_empty()
            || (request.operation != "CREATE" && !request.operation.is_empty())
        {
            return Answer::allow("not a Pod");
        }
        let mut report = Report::new(self, request);
        if !self.scope.contains(&request.namespace) {
            return report.end(&Verdict::Skipped(SkipReason::NamespaceNotEnabled), Vec::new(), None);
        }
        progress.at(Step::Caches);
        if timeout(CACHE_WAIT, self.synced.wait(&request.namespace)).await.is_err() {
            return report.end(&Verdict::NotReady, Vec::new(), None);
        }
        progress.at(Step::Review);
        let pod = match Pod::parse(&request.object) {
            Ok(pod) => pod,
            Err(error) => return report.end(&Verdict::BadPod(error.to_string()), Vec::new(), None),
        };
        match self.decide(request, &pod, progress, &mut report).await {
            Ok(answer) => answer,
            Err(failure) => report.end(&Verdict::Failed(failure.to_string()), Vec::new(), None),
        }
    }

    async fn decide(
        &self,
        request: &Request,
        pod: &Pod<'_>,
        progress: &Progress,
        report: &mut Report<'_>,
    ) -> Result<Answer, Failure> {
        let namespace = request.namespace.as_str();
        let snapshot = self.config.snapshot();
        let cluster = self.cluster_facts(&snapshot);

        progress.at(Step::Namespace);
        let config = self.caches.namespaces.config(namespace);
        let mut labels = match self.caches.namespaces.labels_of(namespace) {
            Some(labels) => labels,
            // Created a moment ago: skipping would leave the Pod without its sidecar.
            None => self.fresh_labels(namespace).await?,
        };
        let mut screened = injection::screen(pod, &cluster, &facts(namespace, &labels, &config));
        if matches!(&screened, Some(Outcome::Skip(skip)) if skip.reason == SkipReason::NamespaceNotEnabled) {
            // The API server sends such Pods only from namespaces it sees as enabled: our view may
            // be older than its.
            labels = self.fresh_labels(namespace).await?;
            screened = injection::screen(pod, &cluster, &facts(namespace, &labels, &config));
        }
        if let Some(outcome) = screened {
            return Ok(report.outcome(outcome, None));
        }

        progress.at(Step::Owner);
        let identity = pod.identity();
        let workload = self.workload(namespace, &identity).await?;
        report.workload(&workload);

        progress.at(Step::AgentRuntime);
        let found = self.runtime(namespace, pod, &workload).await?;
        let names = injection::config_names(&workload, |name| {
            self.caches.config_maps.table.with(namespace, name, ManagedConfigMap::existing)
        });
        let pinned = self.pinned(namespace, &names).await?;
        let dry_run = self.dry_run(request, &workload).await?;

        progress.at(Step::Decision);
        let outcome = injection::inject(&Inputs {
            pod,
            cluster,
            native_sidecars: self.caches.cluster.native_sidecars(),
            namespace: facts(namespace, &labels, &config),
            helper_conf: config.helper.as_deref(),
            workload: &workload,
            runtime: found.as_ref().map(|found| &found.runtime.payload),
            ambiguous_runtime: found.as_ref().filter(|f| f.ambiguous).map(|f| &*f.runtime.name),
            names: &names,
            pinned_config: pinned.as_deref(),
            dry_run,
        });
        let mut outcome = outcome;
        if let Outcome::Inject(injection) = &mut outcome
            && dry_run.is_none()
        {
            progress.at(Step::Writes);
            self.write(namespace, &identity, injection, report).await?;
        }
        Ok(report.outcome(outcome, found.as_ref()))
    }

    fn cluster_facts<'a>(&'a self, snapshot: &'a Snapshot) -> ClusterFacts<'a> {
        ClusterFacts {
            gates: &snapshot.gates,
            platform: &snapshot.platform,
            spire_driver: self.caches.cluster.csi_driver(),
            operator_namespace: &self.operator_namespace,
        }
    }

    async fn fresh_labels(
        &self,
        namespace: &str,
    ) -> Result<Arc<std::collections::BTreeMap<String, String>>, Failure> {
        let labels = self.live.namespace_labels(namespace).await?;
        labels.ok_or_else(|| Failure::NoNamespace(namespace.to_owned()))
    }

    /// The workload of a Pod (webhook §6). A ReplicaSet or Job that is gone is no error.
    async fn workload(&self, namespace: &str, identity: &PodIdentity<'_>) -> Result<Workload, Failure> {
        let Some(read) = needs_live_owner(identity) else { return Ok(workload_of(identity, None)) };
        let Some(kind) = OwnerKind::of(read.kind) else { return Ok(workload_of(identity, None)) };
        let controller = self.owners.controller(namespace, kind, read.name, read.uid).await?;
        let live = controller.map(|owner| LiveOwner {
            group: group_of(&owner.api_version).to_owned(),
            kind: owner.kind.clone(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
        });
        Ok(workload_of(identity, live.as_ref()))
    }

    /// The AgentRuntime of a workload. Only runtime-ctl stamps `kagenti.io/mtls-mode`: a stamped Pod
    /// without AgentRuntime in the store means that the store lags (webhook §7.4).
    async fn runtime(
        &self,
        namespace: &str,
        pod: &Pod<'_>,
        workload: &Workload,
    ) -> Result<Option<Match>, Failure> {
        let found = self.caches.runtimes.matching(namespace, workload);
        if found.is_some() || !pod.annotations().contains_key(annotation::MTLS_MODE) {
            return Ok(found);
        }
        let live = self.live.runtimes(namespace).await?;
        Ok(choose(live.iter().cloned(), workload))
    }

    async fn pinned(&self, namespace: &str, names: &ConfigNames) -> Result<Option<Arc<str>>, Failure> {
        let pinned = self
            .caches
            .config_maps
            .table
            .with(namespace, &names.config, |row| row.pinned.then(|| row.resource_version.clone()));
        match pinned.flatten() {
            Some(version) => Ok(self.live.pinned_config(namespace, &names.config, &version).await?),
            None => Ok(None),
        }
    }

    async fn dry_run(&self, request: &Request, workload: &Workload) -> Result<Option<DryRun>, Failure> {
        if !request.is_dry_run() {
            return Ok(None);
        }
        let namespace = request.namespace.as_str();
        let known = self.caches.service_accounts.known(namespace, &workload.name).is_some();
        let service_account_exists =
            known || self.live.service_account(namespace, &workload.name).await?.is_some();
        Ok(Some(DryRun { service_account_exists }))
    }

    async fn write(
        &self,
        namespace: &str,
        identity: &PodIdentity<'_>,
        injection: &Injection,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        if let Some(warning) = self.writer.carry_out(namespace, identity, &injection.writes).await? {
            report.warn("foreign-service-account", warning);
        }
        Ok(())
    }
}

fn facts<'a>(
    name: &'a str,
    labels: &'a std::collections::BTreeMap<String, String>,
    config: &'a NamespaceConfig,
) -> NamespaceFacts<'a> {
    NamespaceFacts {
        name,
        labels: Some(labels),
        runtime_config: match config.runtime.as_deref() {
            None => RuntimeDocument::Absent,
            Some(Ok(parsed)) => RuntimeDocument::Parsed(parsed),
            Some(Err(error)) => RuntimeDocument::Malformed(error),
        },
        authbridge: AuthbridgeConfig(config.authbridge.as_deref()),
    }
}
