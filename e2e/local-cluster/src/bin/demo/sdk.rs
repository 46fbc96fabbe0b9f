//! The agent on the A2A SDK: a Python process on loopback, from a virtual environment in the user's cache.
//!
//! The first run makes the environment; it counts as made once its marker is there, so an interrupted one is made anew.
//! Everything runs below the cluster's supervisor and ends with it, however the demo ends.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use local_cluster::ports::Port;
use local_cluster::programs::cache_dir;
use local_cluster::{Cluster, ProcessSpec, Signal, Usage, http, wait_for};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::agent::{NAME, URL};
use super::screen::Screen;

/// The agent's program.
const SCRIPT: &str = include_str!("../../../assets/a2a-agent/agent.py");
/// What it needs from PyPI.
const REQUIREMENTS: &str = include_str!("../../../assets/a2a-agent/requirements.txt");
/// Looks at the interpreter; what fails here would fail later, with a longer text.
const PROBE: &str = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])";
/// The oldest Python that the SDK runs on.
const OLDEST: (u32, u32) = (3, 10);
/// Longest time for the interpreter's answer.
const PROBE_LIMIT: Duration = Duration::from_secs(20);
/// Longest time for the environment, all in all.
const INSTALL_LIMIT: Duration = Duration::from_mins(3);
/// Longest time until the agent answers.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Settings of pip and of the network that the user has made.
const PASSED_ON: [&str; 9] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "XDG_CONFIG_HOME",
];

/// The running agent.
#[derive(Debug)]
pub(crate) struct Sdk {
    port: Port,
    pid: i32,
}

impl Sdk {
    /// Makes the environment if need be, starts the agent and reads its card. An error says in one line why not.
    pub(crate) async fn start(cluster: &Cluster, screen: &Screen) -> Result<(Self, Value)> {
        let python = Python::find("python3").await?;
        let place = Environment::of(&cache_dir()?, &python)?;
        if !place.is_made() {
            let task = screen.task(&format!("{} from PyPI (once per user)", version()));
            let made = place.make(cluster, &python).await;
            match made {
                Ok(()) => task.done(),
                Err(error) => {
                    task.cleared();
                    return Err(error);
                }
            }
        }
        let task = screen.task("agent on the A2A SDK");
        match Self::run(cluster, &place).await {
            Ok(started) => {
                task.done();
                Ok(started)
            }
            Err(error) => {
                task.cleared();
                // The interpreter may have gone, for example: the next run makes the environment anew.
                place.forget();
                Err(error)
            }
        }
    }

    async fn run(cluster: &Cluster, place: &Environment) -> Result<(Self, Value)> {
        let script = cluster.info().dir.join("a2a-agent.py");
        fs::write(&script, SCRIPT).with_context(|| format!("writing {}", script.display()))?;
        let port = Port::lease()?;
        let args = [script.display().to_string(), format!("--port={}", port.number())];
        let args = args.into_iter().chain([format!("--name={NAME}"), format!("--url={URL}")]).collect();
        let spec = process(cluster, "a2a-agent", place.python(), args);
        let log = spec.log.clone();
        let pid = cluster.start_process(spec).await?;
        let url = format!("http://127.0.0.1:{}/.well-known/agent-card.json", port.number());
        let card = wait_for(START_LIMIT, "the agent to answer", async || {
            if Usage::of(pid).is_err() {
                // Looking again cannot help.
                return Ok(Some(Value::Null));
            }
            let (status, body) = http::get(&url).await?;
            ensure!(status.is_success(), "it says {status}");
            Ok(Some(serde_json::from_str(&body).context("reading its card")?))
        })
        .await;
        match card {
            Ok(card) if card.is_object() => Ok((Self { port, pid }, card)),
            Ok(_) => bail!("the agent has ended: {}", last_line(&log)),
            Err(error) => {
                cluster.signal_process(pid, Signal::Kill).await.ok();
                Err(error)
            }
        }
    }

    /// The port on 127.0.0.1 where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }
}

/// `a2a-sdk 1.3.0`.
pub(crate) fn version() -> String {
    let pin = REQUIREMENTS.lines().next().unwrap_or_default();
    let (name, version) = pin.split_once("==").unwrap_or((pin, ""));
    format!("{} {version}", name.split('[').next().unwrap_or(name))
}

/// An interpreter that can make environments.
#[derive(Debug, PartialEq, Eq)]
struct Python {
    program: PathBuf,
    version: (u32, u32),
}

impl Python {
    async fn find(program: &str) -> Result<Self> {
        let mut command = tokio::process::Command::new(program);
        command.args(["-c", PROBE]).stdin(std::process::Stdio::null()).kill_on_drop(true);
        let output = match tokio::time::timeout(PROBE_LIMIT, command.output()).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => bail!("there is no {program}"),
            Ok(Err(error)) => return Err(error).with_context(|| format!("starting {program}")),
            Err(_) => bail!("{program} did not answer in {} s", PROBE_LIMIT.as_secs()),
        };
        let said = String::from_utf8_lossy(&output.stdout);
        let version = said.trim().split_once('.');
        let version = version.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        match version {
            Some(version) if version >= OLDEST => Ok(Self { program: program.into(), version }),
            Some((major, minor)) => {
                bail!("{program} is {major}.{minor}, and the SDK needs {}.{}", OLDEST.0, OLDEST.1)
            }
            None => bail!("{program} has no venv (Debian and Ubuntu: apt-get install python3-venv)"),
        }
    }
}

/// A virtual environment in the user's cache.
#[derive(Debug)]
struct Environment {
    dir: PathBuf,
}

impl Environment {
    /// The place for this interpreter and these requirements.
    fn of(cache: &Path, python: &Python) -> Result<Self> {
        let mut hash = Sha256::new();
        hash.update(REQUIREMENTS);
        let digest = hex::encode(hash.finalize());
        let (major, minor) = python.version;
        let name = format!("python{major}.{minor}-{}", digest.get(..16).unwrap_or(&digest));
        let dir = cache.join("a2a-sdk").join(name);
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(Self { dir })
    }

    fn venv(&self) -> PathBuf {
        self.dir.join("venv")
    }

    fn python(&self) -> PathBuf {
        self.venv().join("bin/python")
    }

    fn marker(&self) -> PathBuf {
        self.dir.join("made")
    }

    fn is_made(&self) -> bool {
        self.marker().is_file() && self.python().exists()
    }

    fn forget(&self) {
        let _ = fs::remove_file(self.marker());
    }

    /// Makes it, unless another demo does that meanwhile.
    async fn make(&self, cluster: &Cluster, python: &Python) -> Result<()> {
        let started = Instant::now();
        let _lock = self.lock(started).await?;
        if self.is_made() {
            return Ok(());
        }
        let requirements = self.dir.join("requirements.txt");
        fs::write(&requirements, REQUIREMENTS).context("writing the requirements")?;
        let venv = self.venv().display().to_string();
        let venv = ["-m", "venv", "--clear", &venv].map(str::to_owned).to_vec();
        step(cluster, python.program.clone(), venv, started).await.context("making its environment")?;
        let given = requirements.display().to_string();
        let pip = [
            "-m",
            "pip",
            "--no-input",
            "--disable-pip-version-check",
            "install",
            "--quiet",
            "--retries=1",
            "--timeout=10",
            // Nothing is compiled, and no package runs code of its own to be installed.
            "--only-binary=:all:",
            "--requirement",
            &given,
        ];
        let pip = pip.map(str::to_owned).to_vec();
        step(cluster, self.python(), pip, started)
            .await
            .with_context(|| format!("installing {}", version()))?;
        File::create(self.marker()).context("marking its environment as made")?;
        Ok(())
    }

    async fn lock(&self, started: Instant) -> Result<File> {
        let file = File::create(self.dir.join("lock")).context("the lock of its environment")?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::WouldBlock) => {}
                Err(error) => return Err(error).context("the lock of its environment"),
            }
            ensure!(started.elapsed() < INSTALL_LIMIT, "another demo has been installing it for too long");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Runs a program to its end, or kills it when the time for everything is over.
async fn step(cluster: &Cluster, program: PathBuf, args: Vec<String>, started: Instant) -> Result<()> {
    let spec = process(cluster, "a2a-sdk-install", program, args);
    let log = spec.log.clone();
    let pid = cluster.start_process(spec).await?;
    let rest = INSTALL_LIMIT.saturating_sub(started.elapsed());
    match tokio::time::timeout(rest, cluster.process_ended(pid)).await {
        Ok(Ok(exit)) if exit.code == Some(0) => Ok(()),
        Ok(Ok(_)) => bail!("{}", last_line(&log)),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            cluster.signal_process(pid, Signal::Kill).await.ok();
            bail!("not done in {} s", INSTALL_LIMIT.as_secs())
        }
    }
}

fn process(cluster: &Cluster, name: &str, program: PathBuf, args: Vec<String>) -> ProcessSpec {
    let passed_on = |name: &str| {
        name.starts_with("PIP_") || PASSED_ON.iter().any(|known| known.eq_ignore_ascii_case(name))
    };
    let env: BTreeMap<String, String> = std::env::vars().filter(|(name, _)| passed_on(name)).collect();
    ProcessSpec { name: name.to_owned(), program, args, env, log: cluster.log_path(name), netns: None }
}

/// What a program said last, cut to the length of a line.
fn last_line(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let line: String =
        line.unwrap_or("it said nothing").chars().filter(|c| !c.is_control()).take(120).collect();
    line.trim_start_matches("ERROR: ").to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn script(dir: &Path, text: &str) -> String {
        let path = dir.join("python3");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
        path.display().to_string()
    }

    #[tokio::test]
    async fn an_interpreter_is_looked_at_first() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = async |program: &str| Python::find(program).await.expect_err("refused").to_string();
        assert_eq!(error("/nowhere/python3").await, "there is no /nowhere/python3");
        assert!(error(&script(dir.path(), "echo 3.9")).await.contains("3.9, and the SDK needs 3.10"));
        assert!(error(&script(dir.path(), "exit 1")).await.contains("python3-venv"));
        let new = script(dir.path(), "echo 3.10");
        assert_eq!(Python::find(&new).await.expect("new enough").version, (3, 10));
    }

    #[test]
    fn an_environment_is_made_once_per_interpreter_and_pin() {
        let cache = tempfile::tempdir().expect("a directory");
        let place = |minor| {
            let python = Python { program: "python3".into(), version: (3, minor) };
            Environment::of(cache.path(), &python).expect("a place")
        };
        let one = place(11);
        assert_ne!(one.dir, place(12).dir);
        assert_eq!(one.dir, place(11).dir);
        fs::create_dir_all(one.venv().join("bin")).expect("a half-made one");
        fs::write(one.python(), "").expect("its interpreter");
        assert!(!one.is_made(), "without marker it is made anew");
        fs::write(one.marker(), "").expect("a marker");
        assert!(one.is_made());
        one.forget();
        assert!(!one.is_made());
    }

    #[test]
    fn reasons_are_one_short_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        fs::write(&log, format!("first\nERROR: no network\u{7} {}\n\n", "x".repeat(200))).expect("a log");
        let line = last_line(&log);
        assert!(line.starts_with("no network x") && line.len() <= 120, "{line}");
        assert_eq!(last_line(&dir.path().join("none")), "it said nothing");
    }

    #[test]
    fn the_pin_is_read_from_the_requirements() {
        assert!(version().starts_with("a2a-sdk ") && version().ends_with(char::is_numeric), "{}", version());
        assert!(REQUIREMENTS.lines().all(|line| line.contains("==")));
    }
}
