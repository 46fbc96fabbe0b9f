//! Runs exchanges: a few at once, the rest in a fair queue.
//!
//! Agents that fall silent together would hold all slots until their time is over. So whoever takes long while others
//! wait stands back, and is asked once more among the suspects, with all the time there is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spiffe_svid::SvidSource;
use tokio::{runtime::Handle, sync::oneshot, time::sleep};

use super::connection::Connector;
use super::deny::DenyList;
use super::error::FetchError;
use super::exchange::exchange;
use super::pool::Pool;
use super::queue::{FairQueue, Limits, Ticket};
use super::request::{FetchRequest, Fetched};

/// So long an exchange may take while others wait for its slot.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks whether somebody waits.
const LOOK: Duration = Duration::from_millis(200);

/// The bounds of the flags `--fetch-*` (card §4.1, §6.5).
#[derive(Clone, Debug)]
pub struct FetchLimits {
    /// Wall clock of one whole exchange, both paths included.
    pub timeout: Duration,
    /// For one TCP connection.
    pub connect_timeout: Duration,
    /// Exchanges at once.
    pub concurrency: usize,
    /// Exchanges at once in one namespace.
    pub per_namespace: usize,
    /// Largest body, in bytes.
    pub max_bytes: usize,
    /// Fetches that may wait; one more is refused.
    pub queue: usize,
    /// Addresses that are not dialled.
    pub deny: DenyList,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            concurrency: 64,
            per_namespace: 4,
            max_bytes: 1_048_576,
            queue: 20_000,
            deny: DenyList::default(),
        }
    }
}

/// Fetches agent cards. Clones share one queue and its slots.
#[derive(Clone)]
pub struct Fetcher {
    shared: Arc<Shared>,
}

struct Shared {
    limits: FetchLimits,
    connector: Connector,
    pool: Pool,
    jobs: Mutex<Jobs>,
}

struct Jobs {
    queue: FairQueue<Job>,
    /// Somebody starts jobs and will see what is free by then.
    dispatching: bool,
}

struct Job {
    request: FetchRequest,
    answer: oneshot::Sender<Result<Fetched, FetchError>>,
}

impl Fetcher {
    /// A fetcher that identifies itself with the SVID that `svids` has at each handshake. Without a source
    /// every fetch that asks for mTLS fails with [`FetchError::NoSvid`].
    pub fn new(limits: FetchLimits, svids: Option<SvidSource>) -> Self {
        let queue = FairQueue::new(Limits {
            total: limits.concurrency,
            per_namespace: limits.per_namespace,
            waiting: limits.queue,
        });
        let connector = Connector::new(limits.clone(), svids);
        let shared = Shared {
            limits,
            connector,
            pool: Pool::default(),
            jobs: Mutex::new(Jobs { queue, dispatching: false }),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Waits for a slot, then fetches. Dropping the future gives the place in the queue back, or ends the
    /// exchange.
    pub async fn fetch(&self, request: FetchRequest) -> Result<Fetched, FetchError> {
        let (answer, result) = oneshot::channel();
        let (namespace, suspect) = (request.namespace.clone(), request.suspect);
        self.shared
            .jobs()
            .queue
            .push(&namespace, suspect, Job { request, answer })
            .map_err(|_| FetchError::QueueFull)?;
        dispatch(&self.shared);
        result.await.unwrap_or(Err(FetchError::Stopped))
    }

    /// How many fetches wait for a slot (`kagenti_card_fetch_queue_length`).
    pub fn waiting(&self) -> usize {
        self.shared.jobs().queue.waiting()
    }

    /// How many exchanges are under way.
    pub fn active(&self) -> usize {
        self.shared.jobs().queue.active()
    }
}

impl Shared {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts everything that may start: as many tasks as there are slots, however many jobs wait.
///
/// A runtime that ends drops what is spawned at once, which gives the slot back and comes here again: that call leaves
/// the rest to this one, or a long queue would be a deep stack.
fn dispatch(shared: &Arc<Shared>) {
    let Ok(runtime) = Handle::try_current() else { return };
    if std::mem::replace(&mut shared.jobs().dispatching, true) {
        return;
    }
    loop {
        let next = {
            let mut jobs = shared.jobs();
            let next = jobs.queue.pop();
            jobs.dispatching = next.is_some();
            next
        };
        let Some((ticket, job)) = next else { return };
        let slot = Slot { shared: shared.clone(), ticket };
        runtime.spawn(run(slot, job));
    }
}

async fn run(slot: Slot, mut job: Job) {
    let shared = slot.shared.clone();
    let work = exchange(
        &shared.connector,
        &shared.pool,
        &job.request,
        shared.limits.timeout,
        shared.limits.max_bytes,
    );
    tokio::select! {
        biased;
        // Nobody waits for the answer any more.
        () = job.answer.closed() => return,
        result = work => {
            drop(slot);
            let _ = job.answer.send(result);
            return;
        }
        () = slot.wanted() => {}
    }
    // First those that waited.
    drop(slot);
    let namespace = job.request.namespace.clone();
    let pushed = shared.jobs().queue.push(&namespace, true, job);
    match pushed {
        Ok(()) => dispatch(&shared),
        Err(job) => {
            let _ = job.answer.send(Err(FetchError::QueueFull));
        }
    }
}

/// A slot that comes back however its task ends.
struct Slot {
    shared: Arc<Shared>,
    ticket: Ticket,
}

impl Slot {
    /// Ends when others have to wait because this exchange takes so long. A suspect has time.
    async fn wanted(&self) {
        if self.ticket.is_suspect() {
            std::future::pending::<()>().await;
        }
        sleep(PATIENCE).await;
        while !self.shared.jobs().queue.is_wanted(&self.ticket) {
            sleep(LOOK).await;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.jobs().queue.done(&self.ticket);
        dispatch(&self.shared);
    }
}
