//! The supervisor's child processes: started through the shim, ended by process id, always waited for.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::signal::{self, Signal as Number};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::timeout;

use super::protocol::{Exit, ProcessSpec, Signal};

/// The variables a child inherits; anything else would leak settings of the caller into the cluster.
const INHERITED: [&str; 4] = ["PATH", "HOME", "TMPDIR", "LANG"];

/// Every child that was started and has not been forgotten.
#[derive(Debug, Default)]
pub struct Children(BTreeMap<i32, Child>);

#[derive(Clone, Debug)]
struct Child {
    name: String,
    exit: watch::Receiver<Option<Exit>>,
}

impl Children {
    /// Starts a process and returns its id.
    ///
    /// Must run on the main thread: the kernel ties the parent-death signal to the thread that forked.
    pub fn spawn(&mut self, spec: &ProcessSpec) -> Result<i32> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&spec.log)
            .with_context(|| format!("opening {}", spec.log.display()))?;
        let mut command = Command::new(own_program()?);
        command.arg("exec-shim").arg("--parent").arg(std::process::id().to_string());
        if let Some(netns) = &spec.netns {
            command.arg("--netns").arg(netns);
        }
        command.arg("--").arg(&spec.program).args(&spec.args).env_clear().envs(&spec.env);
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name).filter(|_| !spec.env.contains_key(name)) {
                command.env(name, value);
            }
        }
        // An own process group: Ctrl-C on a terminal reaches the supervisor, which then ends them in order.
        command.process_group(0).stdin(Stdio::null());
        command.stdout(log.try_clone().context("sharing the log file")?).stderr(log);
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {} ({})", spec.name, spec.program.display()))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).context("a child without process id")?;
        let (sender, exit) = watch::channel(None);
        tokio::spawn(async move {
            let ended = child.wait().await.map_or(Exit { code: None, signal: None }, |status| Exit {
                code: status.code(),
                signal: status.signal(),
            });
            // No await between reaping and this line: a reaped process id is never signalled.
            sender.send_replace(Some(ended));
        });
        self.0.insert(pid, Child { name: spec.name.clone(), exit });
        Ok(pid)
    }

    /// Sends a signal to a process and to what it has started itself (each is a process group); an error when it is not
    /// ours or has ended.
    pub fn signal(&self, pid: i32, signal: Signal) -> Result<()> {
        let child = self.child(pid)?;
        if let Some(exit) = *child.exit.borrow() {
            bail!("{} (process {pid}) has already ended ({exit})", child.name);
        }
        signal::killpg(Pid::from_raw(pid), number(signal))
            .with_context(|| format!("signalling {}", child.name))
    }

    /// How a process ended, or a future that waits for it.
    pub fn ended(&self, pid: i32) -> Result<impl Future<Output = Result<Exit>> + use<>> {
        let mut exit = self.child(pid)?.exit.clone();
        Ok(async move {
            let ended =
                exit.wait_for(Option::is_some).await.map_err(|_| anyhow!("nobody waits for {pid}"))?;
            ended.context("a process that has ended")
        })
    }

    /// True while a process runs.
    pub fn runs(&self, pid: i32) -> bool {
        self.0.get(&pid).is_some_and(|child| child.exit.borrow().is_none())
    }

    /// Ends one process: SIGTERM, after `grace` SIGKILL, and waits until it is gone.
    pub async fn end(&self, pid: i32, grace: Duration) -> Result<Exit> {
        let ended = self.ended(pid)?;
        tokio::pin!(ended);
        if self.runs(pid) {
            self.signal(pid, Signal::Term)?;
        }
        if let Ok(exit) = timeout(grace, &mut ended).await {
            return exit;
        }
        if self.runs(pid) {
            self.signal(pid, Signal::Kill)?;
        }
        ended.await
    }

    /// Ends all that still run, at the same time.
    pub async fn end_all(&self, grace: Duration) {
        let running: Vec<i32> = self.0.keys().copied().filter(|pid| self.runs(*pid)).collect();
        futures::future::join_all(running.into_iter().map(|pid| self.end(pid, grace))).await;
    }

    fn child(&self, pid: i32) -> Result<&Child> {
        self.0.get(&pid).with_context(|| format!("process {pid} was not started by this supervisor"))
    }
}

/// This very program, even when its file was replaced by a newer build meanwhile.
fn own_program() -> Result<std::path::PathBuf> {
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into());
    }
    std::env::current_exe().context("finding the own program")
}

fn number(signal: Signal) -> Number {
    match signal {
        Signal::Term => Number::SIGTERM,
        Signal::Kill => Number::SIGKILL,
        Signal::Int => Number::SIGINT,
        Signal::Stop => Number::SIGSTOP,
        Signal::Cont => Number::SIGCONT,
        Signal::Hup => Number::SIGHUP,
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            (None, None) => f.write_str("unknown end"),
        }
    }
}
