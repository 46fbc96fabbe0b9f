//! The SVID at hand, kept fresh by a task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::files::SvidFiles;
use crate::svid::Svid;
use crate::workload_api::WorkloadApi;

/// First and longest pause between two attempts at the Workload API (card §7).
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

enum Origin {
    WorkloadApi(WorkloadApi),
    Files(SvidFiles),
}

struct Inner {
    origin: Origin,
    current: watch::Sender<Option<Arc<Svid>>>,
    obtained: AtomicBool,
}

/// Where the process gets its SVID from. Clones share one state; exactly one of them must be run.
#[derive(Clone)]
pub struct SvidSource {
    inner: Arc<Inner>,
}

impl SvidSource {
    /// From the Workload API.
    pub fn workload_api(api: WorkloadApi) -> Self {
        Self::new(Origin::WorkloadApi(api))
    }

    /// From PEM files, read again when their content changes.
    pub fn files(files: SvidFiles) -> Self {
        Self::new(Origin::Files(files))
    }

    fn new(origin: Origin) -> Self {
        let inner = Inner { origin, current: watch::Sender::new(None), obtained: AtomicBool::new(false) };
        Self { inner: Arc::new(inner) }
    }

    /// The SVID to use now; `None` before the first one and after the last one has expired.
    pub fn current(&self) -> Option<Arc<Svid>> {
        self.inner.current.borrow().clone().filter(|svid| svid.not_after() > Timestamp::now())
    }

    /// Hears of each new SVID.
    pub fn changed(&self) -> watch::Receiver<Option<Arc<Svid>>> {
        self.inner.current.subscribe()
    }

    /// True once any SVID was obtained since the process started (the condition M of card §7).
    pub fn obtained_once(&self) -> bool {
        self.inner.obtained.load(Ordering::Acquire)
    }

    /// Reads the source until `stop` is cancelled. Failures are logged, once per distinct text, and retried for
    /// ever; the last SVID stays in use meanwhile.
    pub async fn run(&self, stop: CancellationToken) {
        let work = async {
            match &self.inner.origin {
                Origin::WorkloadApi(api) => self.follow(api).await,
                Origin::Files(files) => self.poll(files).await,
            }
        };
        stop.run_until_cancelled(work).await;
    }

    async fn follow(&self, api: &WorkloadApi) {
        let mut pause = PAUSE_MIN;
        let mut complaints = Complaints::default();
        loop {
            let ended = match api.open().await {
                Ok((first, following)) => {
                    pause = PAUSE_MIN;
                    complaints.clear();
                    self.obtained(first);
                    let mut following = Box::pin(following);
                    loop {
                        match following.next().await {
                            Some(Ok(svid)) => self.obtained(svid),
                            Some(Err(error)) => break error,
                            None => break "the stream ended".to_owned(),
                        }
                    }
                }
                Err(error) => error,
            };
            complaints.say(&ended);
            // Between half of the pause and the pause: the processes of a node must not come back together.
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn poll(&self, files: &SvidFiles) {
        let mut complaints = Complaints::default();
        let mut seen = None;
        loop {
            let result = files.read().await.and_then(|contents| {
                let digest = contents.digest();
                if seen == Some(digest) {
                    return Ok(None);
                }
                let svid = files.parse(&contents)?;
                seen = Some(digest);
                Ok(Some(svid))
            });
            match result {
                Ok(Some(svid)) => {
                    complaints.clear();
                    self.obtained(svid);
                }
                Ok(None) => complaints.clear(),
                Err(error) => complaints.say(&error.to_string()),
            }
            tokio::time::sleep(files.next_look(seen.is_some())).await;
        }
    }

    fn obtained(&self, svid: Svid) {
        tracing::info!(spiffe_id = svid.id(), not_after = %svid.not_after(), "SVID obtained");
        self.inner.obtained.store(true, Ordering::Release);
        self.inner.current.send_replace(Some(Arc::new(svid)));
    }
}

/// Warns once about the same trouble.
#[derive(Default)]
struct Complaints {
    last: Option<String>,
}

impl Complaints {
    fn say(&mut self, error: &str) {
        if self.last.as_deref() == Some(error) {
            tracing::debug!(error, "still no new SVID");
        } else {
            tracing::warn!(error, "no SVID from its source; retrying");
            self.last = Some(error.to_owned());
        }
    }

    fn clear(&mut self) {
        self.last = None;
    }
}
