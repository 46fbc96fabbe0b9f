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

impl From<BTreeMap<String, PathBuf>> for Binaries {
    fn from(paths: BTreeMap<String, PathBuf>) -> Self {
        Self(paths)
    }
}

impl Binaries {
    /// The path of a program.
    pub fn path(&self, name: &str) -> Result<&Path> {
        let known = || self.0.keys().cloned().collect::<Vec<_>>().join(", ");
        self.0
            .get(name)
            .map(PathBuf::as_path)
            .with_context(|| format!("no program {name} was built, only: {}", known()))
    }
}

/// What this process has built already: cargo is asked once per program and profile.
static BUILT: Mutex<BTreeMap<(Profile, String), PathBuf>> = Mutex::new(BTreeMap::new());

/// Builds programs of the workspace, when they are missing or stale, and says where they are. Blocks while cargo works; progress is shown on standard error.
pub fn build(programs: &[&str], profile: Profile) -> Result<Binaries> {
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let missing: BTreeSet<&str> =
        programs.iter().copied().filter(|name| !built.contains_key(&(profile, (*name).to_owned()))).collect();
    let dir = output_dir(profile);
    let mut stale = BTreeSet::new();
    for name in missing {
        match dir.as_ref().map(|dir| dir.join(name)).filter(|path| is_fresh(path, &workspace())) {
            Some(path) => {
                built.insert((profile, name.to_owned()), path);
            }
            None => {
                stale.insert(name);
            }
        }
    }
    if !stale.is_empty() {
        let profile_argument = format!("--profile={}", cargo_profile(profile));
        for (name, path) in cargo_build(&stale, &[profile_argument], &[])? {
            built.insert((profile, name), path);
        }
    }
    let known = built.iter().filter(|((of, _), _)| *of == profile);
    Ok(Binaries(known.map(|((_, name), path)| (name.clone(), path.clone())).collect()))
}

/// Beginnings of the variables that cargo sets for the programs it runs.
const OF_THE_CALLER: [&str; 5] =
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_NAME", "OUT_DIR"];

/// Lets cargo build programs with further arguments and variables; says where they are.
pub(crate) fn cargo_build(
    programs: &BTreeSet<&str>,
    arguments: &[String],
    variables: &[(&str, &str)],
) -> Result<BTreeMap<String, PathBuf>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command.args(["build", "--quiet", "--message-format=json-render-diagnostics"]);
    command.args(arguments).envs(variables.iter().copied());
    // With the whole workspace chosen, shared dependencies get the same features as in `cargo test
    // --workspace` and `cargo demo`; with single packages half of them would be compiled again.
    command.arg("--workspace");
    for name in programs {
        command.args(["--bin", name]);
    }
    // What `cargo test` and `cargo run` tell a program about its own package looks like a changed environment
    // to build scripts of dependencies (ring reads CARGO_PKG_NAME): they and all above would be built again.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| OF_THE_CALLER.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    let names: Vec<&str> = programs.iter().copied().collect();
    let title = format!("building {}", names.join(", "));
    let slow = SlowTask::start(title.clone());
    let output = command
        .current_dir(workspace())
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| format!("starting {} to build {}", cargo.display(), names.join(", ")))?;
    slow.end(output.status.success());
    if !output.status.success() {
        bail!("{title} failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

/// Where cargo puts the programs of a profile, seen from the running program.
fn output_dir(profile: Profile) -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let dir = program.ancestors().skip(1).find(|dir| !dir.ends_with("deps") && !dir.ends_with("examples"))?;
    Some(match profile {
        Profile::Same => dir.to_owned(),
        Profile::Dev => dir.parent()?.join("debug"),
        Profile::Release => dir.parent()?.join("release"),
    })
}

/// Whether a program is newer than all it was made of, by the list of files that cargo keeps beside it.
///
/// `cargo test --workspace` has built the programs already when a test asks for them. Asking cargo again for
/// a few packages would choose other features for shared dependencies and compile half of them twice.
fn is_fresh(program: &Path, workspace: &Path) -> bool {
    let modified = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let Some(built) = modified(program) else { return false };
    let Ok(list) = std::fs::read_to_string(program.with_extension("d")) else { return false };
    let Some((_, sources)) = list.lines().next().and_then(|line| line.split_once(": ")) else { return false };
    let sources = source_paths(sources);
    // A target directory may be shared by several clones: then the last one's programs lie there.
    let output = program.parent().unwrap_or(program);
    if !sources.iter().all(|path| path.starts_with(workspace) || path.starts_with(output)) {
        return false;
    }
    let manifests = ["Cargo.toml", "Cargo.lock"].map(|name| workspace.join(name));
    let mut files = sources.into_iter().chain(manifests);
    files.all(|path| modified(&path).is_some_and(|time| time <= built))
}

/// The paths of a dependency list; a blank inside a path is written as `\\ `.
fn source_paths(list: &str) -> Vec<PathBuf> {
    let mut paths = vec![String::new()];
    let mut letters = list.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, paths.last_mut()) {
            ('\\', Some(path)) if letters.next_if_eq(&' ').is_some() => path.push(' '),
            (' ', _) => paths.push(String::new()),
            (_, Some(path)) => path.push(letter),
            (_, None) => {}
        }
    }
    paths.into_iter().filter(|path| !path.is_empty()).map(PathBuf::from).collect()
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
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Shows a task only once it turned out to be slow; most builds find everything fresh.
struct SlowTask {
    stop: std::sync::mpsc::Sender<bool>,
    thread: std::thread::JoinHandle<()>,
}

impl SlowTask {
    fn start(title: String) -> Self {
        let (stop, stopped) = std::sync::mpsc::channel::<bool>();
        let thread = std::thread::spawn(move || {
            use std::sync::mpsc::RecvTimeoutError::Timeout;
            let second = std::time::Duration::from_secs(1);
            if stopped.recv_timeout(second * 2) != Err(Timeout) {
                return;
            }
            let mut task = Terminal::stderr().task(&title);
            let success = loop {
                match stopped.recv_timeout(second) {
                    Err(Timeout) => task.detail("cargo is at work"),
                    ended => break ended == Ok(true),
                }
            };
            if success { task.done() } else { task.cleared() }
        });
        Self { stop, thread }
    }

    /// Ends the display before anything else is written.
    fn end(self, success: bool) {
        let _ = self.stop.send(success);
        let _ = self.thread.join();
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
    fn a_program_is_stale_once_a_source_is_newer() {
        let dir = tempfile::tempdir().expect("a directory");
        let clone = dir.path().join("clone");
        std::fs::create_dir_all(dir.path().join("out")).expect("a directory");
        std::fs::create_dir_all(&clone).expect("a directory");
        let (program, source) = (dir.path().join("out/prog"), clone.join("a source.rs"));
        for path in [&source, &clone.join("Cargo.toml"), &clone.join("Cargo.lock"), &program] {
            std::fs::write(path, "").expect("a file");
        }
        assert!(!is_fresh(&program, &clone), "without a list nothing is known");
        let escaped = source.display().to_string().replace(' ', "\\ ");
        std::fs::write(program.with_extension("d"), format!("{}: {escaped} {escaped}\n", program.display()))
            .expect("a list");
        assert!(is_fresh(&program, &clone));
        assert!(!is_fresh(&program, &dir.path().join("another clone")));
        let later = std::time::SystemTime::now() + std::time::Duration::from_mins(1);
        std::fs::File::open(&source).expect("open").set_modified(later).expect("touched");
        assert!(!is_fresh(&program, &clone));
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
