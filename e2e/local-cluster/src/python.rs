//! Python programs of the local cluster: the interpreter, and virtual environments in the user's cache.
//!
//! An environment counts as made once its marker is there, so an interrupted one is made anew. One process makes it at
//! a time. Whatever is run for it runs below the cluster's supervisor and ends with the cluster.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::cluster::Cluster;
use crate::run::run_within;
use crate::supervisor::protocol::{ProcessSpec, Signal};
use crate::terminal::Task;

/// Looks at the interpreter; what fails here would fail later, with a longer text.
const PROBE: &str = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])";
/// Longest time for the interpreter's answer.
const PROBE_LIMIT: Duration = Duration::from_secs(20);
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

/// An interpreter that can make environments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Python {
    program: PathBuf,
    version: (u32, u32),
}

impl Python {
    /// Looks at `program`, which must be at least of version `oldest`. The error is one line with the remedy.
    pub async fn find(program: &str, oldest: (u32, u32)) -> Result<Self> {
        let mut command = tokio::process::Command::new(program);
        command.args(["-c", PROBE]);
        let output = match run_within(command, PROBE_LIMIT).await {
            Ok(output) => output,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("there is no {program} (Debian and Ubuntu: apt-get install python3 python3-venv)")
            }
            Err(error) => return Err(error).with_context(|| format!("running {program}")),
        };
        let said = String::from_utf8_lossy(&output.stdout);
        let version = said.trim().split_once('.');
        let version = version.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        match version {
            Some(version) if version >= oldest => Ok(Self { program: program.into(), version }),
            Some((major, minor)) => {
                bail!("{program} is {major}.{minor}, and at least {}.{} is needed", oldest.0, oldest.1)
            }
            None => bail!("{program} has no venv (Debian and Ubuntu: apt-get install python3-venv)"),
        }
    }

    /// `Python 3.11`.
    pub fn describe(&self) -> String {
        format!("Python {}.{}", self.version.0, self.version.1)
    }
}

/// What an environment holds.
#[derive(Clone, Copy, Debug)]
pub struct Packages {
    /// Its directory in the user's cache, also its name in logs: `mlflow`.
    pub name: &'static str,
    /// Pinned packages, one a line.
    pub requirements: &'static str,
    /// Longest time for making it, all in all.
    pub limit: Duration,
}

/// A virtual environment in the user's cache.
#[derive(Debug)]
pub struct Environment {
    dir: PathBuf,
    packages: Packages,
}

impl Environment {
    /// The place for this interpreter and these packages below the user's cache.
    pub fn of(cache: &Path, packages: Packages, python: &Python) -> Result<Self> {
        let digest = hex::encode(Sha256::digest(packages.requirements));
        let (major, minor) = python.version;
        let name = format!("python{major}.{minor}-{}", digest.get(..16).unwrap_or(&digest));
        let dir = cache.join(packages.name).join(name);
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(Self { dir, packages })
    }

    /// Its interpreter.
    pub fn python(&self) -> PathBuf {
        self.venv().join("bin/python")
    }

    /// Whether it can be used as it is.
    pub fn is_made(&self) -> bool {
        self.marker().is_file() && self.python().exists()
    }

    /// Makes the next caller of [`Environment::make`] start anew.
    pub fn forget(&self) {
        let _ = fs::remove_file(self.marker());
    }

    /// Makes it, unless another process does that meanwhile; shows on `task` how far it is.
    pub async fn make(&self, cluster: &Cluster, python: &Python, task: &mut Task) -> Result<()> {
        let started = Instant::now();
        let _lock = self.lock(started).await?;
        if self.is_made() {
            return Ok(());
        }
        let requirements = self.dir.join("requirements.txt");
        fs::write(&requirements, self.packages.requirements).context("writing the requirements")?;
        let venv = self.venv().display().to_string();
        let venv = ["-m", "venv", "--clear", &venv].map(str::to_owned).to_vec();
        self.step(cluster, python.program.clone(), venv, started, task)
            .await
            .context("making its environment")?;
        let given = requirements.display().to_string();
        let pip = [
            "-m",
            "pip",
            "--no-input",
            "--disable-pip-version-check",
            "install",
            "--progress-bar=off",
            "--retries=1",
            "--timeout=10",
            // Nothing is compiled, and no package runs code of its own to be installed.
            "--only-binary=:all:",
            "--requirement",
            &given,
        ];
        let pip = pip.map(str::to_owned).to_vec();
        self.step(cluster, self.python(), pip, started, task)
            .await
            .with_context(|| format!("installing {} from PyPI", self.packages.name))?;
        File::create(self.marker()).context("marking its environment as made")?;
        Ok(())
    }

    fn venv(&self) -> PathBuf {
        self.dir.join("venv")
    }

    fn marker(&self) -> PathBuf {
        self.dir.join("made")
    }

    async fn lock(&self, started: Instant) -> Result<File> {
        let file = File::create(self.dir.join("lock")).context("the lock of its environment")?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::WouldBlock) => {}
                Err(error) => return Err(error).context("the lock of its environment"),
            }
            ensure!(
                started.elapsed() < self.packages.limit,
                "another process has been installing {} for too long",
                self.packages.name
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Runs a program to its end, or kills it when the time for everything is over.
    async fn step(
        &self,
        cluster: &Cluster,
        program: PathBuf,
        args: Vec<String>,
        started: Instant,
        task: &mut Task,
    ) -> Result<()> {
        let name = format!("{}-install", self.packages.name);
        let spec = ProcessSpec {
            log: cluster.log_path(&name),
            name,
            program,
            args,
            env: settings_of_pip(),
            netns: None,
        };
        let log = spec.log.clone();
        let pid = cluster.start_process(spec).await?;
        let ended = cluster.process_ended(pid);
        tokio::pin!(ended);
        loop {
            let rest = self.packages.limit.saturating_sub(started.elapsed());
            match tokio::time::timeout(rest.min(Duration::from_secs(1)), &mut ended).await {
                Ok(Ok(exit)) if exit.code == Some(0) => return Ok(()),
                Ok(Ok(_)) => bail!("{}", last_line(&log)),
                Ok(Err(error)) => return Err(error),
                Err(_) if rest.is_zero() => {
                    cluster.signal_process(pid, Signal::Kill).await.ok();
                    bail!("not done in {} s; {}", self.packages.limit.as_secs(), last_line(&log))
                }
                Err(_) => task.detail(&last_line(&log)),
            }
        }
    }
}

/// What of the caller's environment pip has to know.
fn settings_of_pip() -> BTreeMap<String, String> {
    let passed_on = |name: &str| {
        name.starts_with("PIP_") || PASSED_ON.iter().any(|known| known.eq_ignore_ascii_case(name))
    };
    std::env::vars().filter(|(name, _)| passed_on(name)).collect()
}

/// What a program said last, cut to the length of a line.
pub fn last_line(log: &Path) -> String {
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

    const OLDEST: (u32, u32) = (3, 10);
    const PACKAGES: Packages =
        Packages { name: "some", requirements: "some==1.0\n", limit: Duration::from_secs(1) };

    fn script(dir: &Path, text: &str) -> String {
        let path = dir.join("python3");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
        // A child that another test is just starting holds the file open for writing until it executes its program.
        let busy = std::io::ErrorKind::ExecutableFileBusy;
        while std::process::Command::new(&path).output().is_err_and(|error| error.kind() == busy) {
            std::thread::sleep(Duration::from_millis(10));
        }
        path.display().to_string()
    }

    #[tokio::test]
    async fn an_interpreter_is_looked_at_first() {
        let dir = tempfile::tempdir().expect("a directory");
        let error =
            async |program: &str| Python::find(program, OLDEST).await.expect_err("refused").to_string();
        assert!(error("/nowhere/python3").await.starts_with("there is no /nowhere/python3"));
        assert!(error(&script(dir.path(), "echo 3.9")).await.contains("3.9, and at least 3.10"));
        assert!(error(&script(dir.path(), "exit 1")).await.contains("python3-venv"));
        let new = script(dir.path(), "echo 3.10");
        assert_eq!(Python::find(&new, OLDEST).await.expect("new enough").version, (3, 10));
    }

    #[test]
    fn an_environment_is_made_once_per_interpreter_and_pin() {
        let cache = tempfile::tempdir().expect("a directory");
        let place = |minor| {
            let python = Python { program: "python3".into(), version: (3, minor) };
            Environment::of(cache.path(), PACKAGES, &python).expect("a place")
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
}
