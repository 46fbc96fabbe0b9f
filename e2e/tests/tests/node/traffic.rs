//! Pods that are created all the time, as on a busy cluster: what happens to the webhook meanwhile must not be felt.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::admission::{Admission, PODS, published};
use e2e::{Json as _, Ns, api, kinds, objects, secs, wait_for};
use kube::Client;
use local_cluster::{Cluster, access};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::chart::NAMESPACE;

/// Twenty Pods per second (packaging 11 and 12).
const BETWEEN: Duration = Duration::from_millis(50);
/// So many are under way at most. A name that is used again belongs to a workload that the webhook knows already, as
/// most Pods of a cluster do.
const NAMES: usize = 40;
/// An answer may take as long as the API server waits for the webhook, and then some.
const PATIENCE: Duration = secs(30);
/// Failures that are told; the others are counted.
const TOLD: usize = 10;
/// Name of the webhook's Service, which is also the name in its certificate.
const SERVICE: &str = "kagenti-operator-kagenti-operator-chart-webhook-service";

/// A namespace whose client takes the first answer for an answer, as kubectl does, instead of trying again.
pub(crate) async fn impatient(cluster: &Cluster, namespace: &str) -> Result<Ns> {
    let mut config = access::config(cluster.kubeconfig()).await?;
    config.default_retry = false;
    Ok(Ns::new(Client::try_from(config).context("a client")?, namespace))
}

/// A Pod that is injected and never reaches the node.
pub(crate) fn gated_pod(name: &str) -> Value {
    let gates = json!([{"name": "test.kagenti.io/never"}]);
    objects::pod(name).label("kagenti.io/type", "agent").spec(json!({"schedulingGates": gates})).build()
}

/// Twenty Pods per second through the API server, and two new connections per second to the webhook's Service, until
/// it is finished.
pub(crate) struct Traffic {
    tally: Arc<Tally>,
    tasks: [JoinHandle<Result<()>>; 2],
}

/// What has happened so far.
#[derive(Default)]
struct Tally {
    ended: AtomicBool,
    admitted: AtomicUsize,
    greeted: AtomicUsize,
    failed: AtomicUsize,
    told: Mutex<Vec<String>>,
    slowest: Mutex<Duration>,
}

/// What has happened in the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum {
    /// Pods that were admitted with their sidecar.
    pub(crate) admitted: usize,
    /// New connections that trusted the certificate by what was published just then.
    pub(crate) greeted: usize,
    /// The longest time an admitted Pod took.
    pub(crate) slowest: Duration,
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { admitted, greeted, slowest } = self;
        write!(f, "{admitted} Pods, the slowest after {} ms; {greeted} new connections", slowest.as_millis())
    }
}

impl Traffic {
    /// Starts in a namespace that is enabled for injection.
    pub(crate) async fn start(cluster: &Cluster, namespace: &str) -> Result<Self> {
        let ns = impatient(cluster, namespace).await?;
        let tally = Arc::new(Tally::default());
        let pods = tokio::spawn(create_pods(ns.clone(), tally.clone()));
        let greetings = tokio::spawn(connect(ns, tally.clone()));
        let traffic = Self { tally, tasks: [pods, greetings] };
        traffic.goes_on(20).await?;
        Ok(traffic)
    }

    /// Waits until so many more Pods were admitted.
    pub(crate) async fn goes_on(&self, more: usize) -> Result<()> {
        let wanted = self.admitted() + more;
        let limit = secs(20) + BETWEEN * u32::try_from(more).unwrap_or(u32::MAX) * 4;
        wait_for(limit, &format!("{more} more Pods to be admitted"), async || {
            Ok((self.admitted() >= wanted).then_some(()))
        })
        .await
        .with_context(|| self.tally.failures())
    }

    fn admitted(&self) -> usize {
        self.tally.admitted.load(Ordering::SeqCst)
    }

    /// Ends it. An error when a Pod was refused, came without its sidecar, or a connection failed.
    pub(crate) async fn finish(self) -> Result<Sum> {
        self.tally.ended.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.context("traffic")??;
        }
        let tally = &self.tally;
        let sum = Sum {
            admitted: tally.admitted.load(Ordering::SeqCst),
            greeted: tally.greeted.load(Ordering::SeqCst),
            slowest: *tally.slowest.lock().unwrap_or_else(PoisonError::into_inner),
        };
        ensure!(tally.failed.load(Ordering::SeqCst) == 0, "{sum}\n{}", tally.failures());
        Ok(sum)
    }
}

impl Tally {
    fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    fn fail(&self, what: &str) {
        self.failed.fetch_add(1, Ordering::SeqCst);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < TOLD {
            told.push(format!("{} {what}", jiff::Timestamp::now()));
        }
    }

    fn failures(&self) -> String {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
        format!("{} failures\n{told}", self.failed.load(Ordering::SeqCst))
    }

    fn admit(&self, took: Duration) {
        self.admitted.fetch_add(1, Ordering::SeqCst);
        let mut slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        *slowest = took.max(*slowest);
    }
}

async fn create_pods(ns: Ns, tally: Arc<Tally>) -> Result<()> {
    let (free, mut names) = mpsc::unbounded_channel();
    for number in 0..NAMES {
        free.send(format!("load-{number:02}")).context("a name")?;
    }
    let mut tick = interval(BETWEEN);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while !tally.ended() {
        tick.tick().await;
        let name = names.recv().await.context("a free name")?;
        let (ns, tally, free) = (ns.clone(), tally.clone(), free.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(PATIENCE, create(&ns, &name)).await {
                Ok(Ok(took)) => tally.admit(took),
                Ok(Err(error)) => tally.fail(&format!("{name}: {error:#}")),
                Err(_) => tally.fail(&format!("{name}: no answer within {PATIENCE:?}")),
            }
            let _ = free.send(name);
        });
    }
    // All names are back when all answers are there.
    for _ in 0..NAMES {
        tokio::time::timeout(PATIENCE * 2, names.recv()).await.context("an answer that never came")?;
    }
    Ok(())
}

/// Creates a Pod, looks at it and deletes it; how long its creation took.
async fn create(ns: &Ns, name: &str) -> Result<Duration> {
    let started = Instant::now();
    let pod = ns.create(gated_pod(name)).await?;
    let took = started.elapsed();
    ns.delete(kinds::POD, name).await?;
    ensure!(pod.container("authbridge-proxy").is_some(), "admitted without its sidecar");
    Ok(took)
}

/// As an API server that comes up in this moment: the bundle of now, a connection of its own.
async fn connect(ns: Ns, tally: Arc<Tally>) -> Result<()> {
    let global = Ns::cluster(ns.client().clone());
    let mut tick = interval(Duration::from_millis(500));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !tally.ended() {
        tick.tick().await;
        match tokio::time::timeout(PATIENCE, greet(&global)).await {
            Ok(Ok(())) => drop(tally.greeted.fetch_add(1, Ordering::SeqCst)),
            Ok(Err(error)) => tally.fail(&format!("a new connection: {error:#}")),
            Err(_) => tally.fail("a new connection: no answer"),
        }
    }
    Ok(())
}

/// A new connection through the Service, verified by what is published now.
pub(crate) async fn greet(global: &Ns) -> Result<()> {
    let address = global.other(NAMESPACE).get(kinds::SERVICE, SERVICE).await?;
    let url = format!("https://{}", address.text("/spec/clusterIP"));
    let name = format!("{SERVICE}.{NAMESPACE}.svc");
    let admission = Admission::at(&url, Some(&name), &published(global).await?)?;
    let reply = admission.post(PODS, b"{".to_vec()).await?;
    ensure!(reply.status == 400, "{} {}", reply.status, reply.message());
    Ok(())
}

/// Creates so many Pods at the same time and takes them away again: all of them must be answered, with their sidecar.
pub(crate) async fn burst(ns: &Ns, count: usize) -> Result<()> {
    let pods = (0..count).map(|number| async move { create(ns, &format!("burst-{number:02}")).await });
    let failed: Vec<String> = futures::future::join_all(pods)
        .await
        .into_iter()
        .filter_map(|outcome| outcome.err().map(|error| format!("{error:#}")))
        .collect();
    if !failed.is_empty() {
        bail!("{} of {count} Pods failed at once:\n{}", failed.len(), failed.join("\n"));
    }
    Ok(())
}

/// Asks the eviction API, as `kubectl drain` does.
pub(crate) async fn evict(ns: &Ns, pod: &str) -> Result<api::Reply> {
    let eviction = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": ns.name()},
    });
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", ns.name());
    api::call(ns.client(), "POST", &path, "application/json", Some(&eviction)).await
}
