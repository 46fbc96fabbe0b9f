//! The agent on the A2A SDK: a Python process on loopback, from a virtual environment in the user's cache.
//!
//! Everything runs below the cluster's supervisor and ends with it, however the demo ends.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use local_cluster::ports::Port;
use local_cluster::programs::cache_dir;
use local_cluster::python::{Environment, Packages, Python, last_line};
use local_cluster::{Cluster, ProcessSpec, Signal, Usage, http, wait_for};
use serde_json::Value;

use super::agent::{NAME, URL};
use super::screen::Screen;

/// The agent's program.
const SCRIPT: &str = include_str!("../../../assets/a2a-agent/agent.py");
/// What it needs from PyPI.
const PACKAGES: Packages = Packages {
    name: "a2a-sdk",
    requirements: include_str!("../../../assets/a2a-agent/requirements.txt"),
    limit: Duration::from_mins(3),
};
/// The oldest Python that the SDK runs on.
const OLDEST: (u32, u32) = (3, 10);
/// Longest time until the agent answers.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The running agent.
#[derive(Debug)]
pub(crate) struct Sdk {
    port: Port,
    pid: i32,
}

impl Sdk {
    /// Makes the environment if need be, starts the agent and reads its card. An error says in one line why not.
    pub(crate) async fn start(cluster: &Cluster, screen: &Screen) -> Result<(Self, Value)> {
        let python = Python::find("python3", OLDEST).await?;
        let place = Environment::of(&cache_dir()?, PACKAGES, &python)?;
        if !place.is_made() {
            let mut task = screen.task(&format!("{} from PyPI (once per user)", version()));
            let made = place.make(cluster, &python, &mut task).await;
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
        let name = "a2a-agent".to_owned();
        let log = cluster.log_path(&name);
        let (program, env) = (place.python(), BTreeMap::new());
        let spec = ProcessSpec { name, program, args, env, log: log.clone(), netns: None };
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
    let pin = PACKAGES.requirements.lines().next().unwrap_or_default();
    let (name, version) = pin.split_once("==").unwrap_or((pin, ""));
    format!("{} {version}", name.split('[').next().unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_is_read_from_the_requirements() {
        assert!(version().starts_with("a2a-sdk ") && version().ends_with(char::is_numeric), "{}", version());
        assert!(PACKAGES.requirements.lines().all(|line| line.contains("==")));
    }
}
