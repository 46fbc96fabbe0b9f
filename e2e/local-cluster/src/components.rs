//! The suite's own programs: found in, or built into, the cargo target directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::options::Profile;
use crate::terminal::Terminal;

/// Paths of built programs by name.
#[derive(Clone, Debug, Default)]
pub struct Binaries(BTreeMap<String, PathBuf>);

impl Binaries {
    /// The path of a program.
    pub fn path(&self, name: &str) -> Result<&Path> {
        let known = || self.0.keys().cloned().collect::<Vec<_>>().join(", ");
        self.0
            .get(name)
            .map(PathBuf::as_path)
            .with_context(|| format!("package {name} builds no program {name}; built were: {}", known()))
    }
}

/// What this process has built already: cargo is asked once per package and profile.
static BUILT: Mutex<BTreeMap<(Profile, String), PathBuf>> = Mutex::new(BTreeMap::new());

/// Builds the programs of workspace packages of these names, when they are missing or stale, and says where
/// they are. Blocks while cargo works; progress is shown on standard error.
pub fn build(packages: &[&str], profile: Profile) -> Result<Binaries> {
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let missing: BTreeSet<&str> = packages
        .iter()
        .copied()
        .filter(|package| !built.contains_key(&(profile, (*package).to_owned())))
        .collect();
    if !missing.is_empty() {
        for (name, path) in cargo_build(&missing, profile)? {
            built.insert((profile, name), path);
        }
    }
    let known = built.iter().filter(|((of, _), _)| *of == profile);
    Ok(Binaries(known.map(|((_, name), path)| (name.clone(), path.clone())).collect()))
}

fn cargo_build(packages: &BTreeSet<&str>, profile: Profile) -> Result<BTreeMap<String, PathBuf>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command.args(["build", "--quiet", "--bins", "--message-format=json-render-diagnostics"]);
    command.args(["--profile", &cargo_profile(profile)]);
    for package in packages {
        command.args(["--package", package]);
    }
    let names: Vec<&str> = packages.iter().copied().collect();
    let title = format!("building {}", names.join(", "));
    let slow = SlowTask::start(title.clone());
    let output = command
        .current_dir(workspace())
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| format!("starting {} to build {}", cargo.display(), names.join(", ")))?;
    drop(slow);
    if !output.status.success() {
        bail!("{title} failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

/// The programs that cargo's messages name.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for message in messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let text = |path: &str| message.pointer(path).and_then(Value::as_str);
        if let (Some("compiler-artifact"), Some(name), Some(path)) =
            (text("/reason"), text("/target/name"), text("/executable"))
        {
            found.insert(name.to_owned(), PathBuf::from(path));
        }
    }
    found
}

/// The name cargo knows a profile by.
fn cargo_profile(profile: Profile) -> String {
    match profile {
        Profile::Dev => "dev".to_owned(),
        Profile::Release => "release".to_owned(),
        Profile::Same => {
            std::env::current_exe().ok().and_then(|exe| profile_of(&exe)).unwrap_or_else(|| "dev".into())
        }
    }
}

/// The profile whose directory a program lies in: `target/debug/demo`, `target/debug/deps/test-0123`.
fn profile_of(program: &Path) -> Option<String> {
    let dir = program.ancestors().skip(1).find(|dir| !dir.ends_with("deps") && !dir.ends_with("examples"))?;
    let name = dir.file_name()?.to_str()?;
    Some(if name == "debug" { "dev".to_owned() } else { name.to_owned() })
}

/// The workspace these sources were built from.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Shows a task only once it turned out to be slow; most builds find everything fresh.
struct SlowTask {
    stop: std::sync::mpsc::Sender<()>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl SlowTask {
    fn start(title: String) -> Self {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            use std::sync::mpsc::RecvTimeoutError::Timeout;
            let second = std::time::Duration::from_secs(1);
            if stopped.recv_timeout(second * 2) != Err(Timeout) {
                return;
            }
            let mut task = Terminal::stderr().task(&title);
            while stopped.recv_timeout(second) == Err(Timeout) {
                task.detail("cargo is at work");
            }
            task.done();
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for SlowTask {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/x/target/debug/demo", "dev")]
    #[case("/x/target/debug/deps/cluster-0123", "dev")]
    #[case("/x/target/release/bench", "release")]
    fn profiles(#[case] program: &str, #[case] profile: &str) {
        assert_eq!(profile_of(Path::new(program)).as_deref(), Some(profile));
    }

    #[test]
    fn programs_are_read_from_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"kube"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"runtime-ctl"},"executable":"/x/runtime-ctl"}"#,
            "\n{\"reason\":\"build-finished\",\"success\":true}\n",
        );
        let found = executables(messages);
        assert_eq!(found.len(), 1);
        assert_eq!(found["runtime-ctl"], Path::new("/x/runtime-ctl"));
    }
}
