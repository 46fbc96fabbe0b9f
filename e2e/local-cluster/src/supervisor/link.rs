//! The library's end of the conversation with a supervisor.
//!
//! Plain threads and one-shot channels, so that a link may be shared between tests that each have their
//! own async runtime. Dropping the link closes the supervisor's standard input, which ends the cluster; so
//! does the death of this process.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::sync::oneshot;

use super::protocol::{Act, ClusterInfo, Notice, Order, Outcome, ProcessSpec, Request, Signal, Value};

/// How long a supervisor may take to end everything before it is killed (its children die with it).
const END_LIMIT: Duration = Duration::from_secs(10);

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Outcome>>>>;

/// A running supervisor.
#[derive(Debug)]
pub struct Link {
    stdin: Mutex<Option<ChildStdin>>,
    child: Mutex<Child>,
    waiting: Waiting,
    next: AtomicU64,
    reader: Mutex<Option<JoinHandle<()>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Starts a supervisor and waits until its cluster works. `progress` gets what it is doing.
    /// Blocks; call it off the async runtime.
    pub fn start(
        program: &Path,
        order: &Order,
        mut progress: impl FnMut(&str),
    ) -> Result<(Self, ClusterInfo)> {
        let mut child = Command::new(program)
            .args(["up", "--supervised"])
            // Ctrl-C on a terminal must not reach it: the user of the cluster decides how to end.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut stdin = child.stdin.take().context("the supervisor has no standard input")?;
        let stdout = child.stdout.take().context("the supervisor has no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        writeln!(stdin, "{}", serde_json::to_string(order)?)
            .context("telling the supervisor what to start")?;
        let info = loop {
            let Some(line) = lines.next() else {
                let status = child.wait().context("waiting for the supervisor")?;
                bail!("the supervisor ended with {status} before the cluster was ready");
            };
            let line = line.context("listening to the supervisor")?;
            match serde_json::from_str(&line).with_context(|| format!("the supervisor said {line:?}"))? {
                Notice::Progress { text } => progress(&text),
                Notice::Ready(info) => break *info,
                Notice::Failed { error } => {
                    drop(stdin);
                    let _ = child.wait();
                    return Err(anyhow!(error).context("starting the local cluster"));
                }
                Notice::Answer { .. } => {}
            }
        };
        let waiting = Waiting::default();
        let answers = waiting.clone();
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Ok(Notice::Answer { id, outcome }) = serde_json::from_str(&line)
                    && let Some(sender) = locked(&answers).remove(&id)
                {
                    let _ = sender.send(outcome);
                }
            }
            // The supervisor is gone: whoever waits learns it by the dropped senders.
            locked(&answers).clear();
        });
        let link = Self {
            stdin: Mutex::new(Some(stdin)),
            child: Mutex::new(child),
            waiting,
            next: AtomicU64::new(1),
            reader: Mutex::new(Some(reader)),
        };
        Ok((link, info))
    }

    /// Asks the supervisor to do something and waits for its answer.
    pub async fn ask(&self, act: Act) -> Result<Value> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        locked(&self.waiting).insert(id, sender);
        let line = serde_json::to_string(&Request { id, act }).context("writing a request")?;
        match locked(&self.stdin).as_mut() {
            Some(stdin) => writeln!(stdin, "{line}").context("the cluster's supervisor is gone")?,
            None => bail!("the cluster was stopped"),
        }
        match receiver.await.context("the cluster's supervisor is gone")? {
            Outcome::Done(value) => Ok(value),
            Outcome::Error(error) => Err(anyhow!(error)),
        }
    }

    /// Starts a process that ends with the cluster and returns its id.
    pub async fn spawn(&self, spec: ProcessSpec) -> Result<i32> {
        match self.ask(Act::Spawn(Box::new(spec))).await? {
            Value::Pid(pid) => Ok(pid),
            other => bail!("unexpected answer {other:?}"),
        }
    }

    /// Signals a process started by [`Link::spawn`].
    pub async fn signal(&self, pid: i32, signal: Signal) -> Result<()> {
        self.ask(Act::Signal { pid, signal }).await.map(drop)
    }

    /// Signals a process without waiting for an answer; for destructors.
    pub(crate) fn signal_and_forget(&self, pid: i32, signal: Signal) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let request = Request { id, act: Act::Signal { pid, signal } };
        if let (Ok(line), Some(stdin)) = (serde_json::to_string(&request), locked(&self.stdin).as_mut()) {
            let _ = writeln!(stdin, "{line}");
        }
    }

    /// Ends the cluster and waits until every process is gone. Also done when the link is dropped.
    pub fn stop(&self) {
        // Closing standard input is the request.
        drop(locked(&self.stdin).take());
        let mut child = locked(&self.child);
        let started = Instant::now();
        while let Ok(None) = child.try_wait() {
            if started.elapsed() > END_LIMIT {
                let _ = child.kill();
                let _ = child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Some(reader) = locked(&self.reader).take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop();
    }
}
