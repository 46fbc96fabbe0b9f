//! The node's cgroups: one name below every hierarchy of this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Where Linux mounts them.
const ROOT: &str = "/sys/fs/cgroup";
/// Processes that were killed leave their cgroup a moment later.
const EMPTY_WITHIN: Duration = Duration::from_secs(10);

/// The name that belongs to a cluster's directory.
pub(super) fn name(dir: &Path) -> String {
    let unique = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("kagenti-lc-{unique}")
}

/// Makes the cgroup in every hierarchy.
pub(super) fn make(name: &str) -> Result<()> {
    for hierarchy in hierarchies(Path::new(ROOT)) {
        let dir = hierarchy.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("creating the cgroup {}", dir.display()))?;
        // Version 1 gives a new cpuset nothing, and what is below it can have no more.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if dir.join(file).exists() && hierarchy.join("cpuset.cpu_exclusive").exists() {
                let all = fs::read(hierarchy.join(file)).with_context(|| format!("reading {file}"))?;
                fs::write(dir.join(file), all).with_context(|| format!("writing {file}"))?;
            }
        }
    }
    Ok(())
}

/// Removes it and everything below it. Never fails: an empty cgroup costs nothing.
pub(super) fn remove(name: &str) {
    let started = Instant::now();
    for dir in hierarchies(Path::new(ROOT)).into_iter().map(|hierarchy| hierarchy.join(name)) {
        while dir.exists() {
            remove_tree(&dir);
            if started.elapsed() > EMPTY_WITHIN {
                return;
            }
            if dir.exists() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Children first; the files in a cgroup belong to the kernel and go with it.
fn remove_tree(dir: &Path) {
    for child in directories(dir) {
        remove_tree(&child);
    }
    let _ = fs::remove_dir(dir);
}

/// One for version 2; the controllers' directories, and the unified one, for version 1.
fn hierarchies(root: &Path) -> Vec<PathBuf> {
    if root.join("cgroup.controllers").is_file() { vec![root.to_owned()] } else { directories(root) }
}

/// Directories in a directory; links (`cpu -> cpu,cpuacct`) are not followed.
fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let real = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut found: Vec<PathBuf> = real.map(|entry| entry.path()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_told_apart() {
        let root = tempfile::tempdir().expect("a directory");
        for hierarchy in ["cpu,cpuacct", "memory"] {
            fs::create_dir(root.path().join(hierarchy)).expect("a hierarchy");
        }
        std::os::unix::fs::symlink("cpu,cpuacct", root.path().join("cpu")).expect("a link");
        assert_eq!(hierarchies(root.path()), [root.path().join("cpu,cpuacct"), root.path().join("memory")]);
        fs::write(root.path().join("cgroup.controllers"), "cpu memory").expect("version 2");
        assert_eq!(hierarchies(root.path()), [root.path().to_owned()]);
    }

    #[test]
    fn every_cluster_has_a_name_of_its_own() {
        assert_eq!(name(Path::new("/tmp/clusters/77-0a1b2c3d")), "kagenti-lc-77-0a1b2c3d");
    }
}
