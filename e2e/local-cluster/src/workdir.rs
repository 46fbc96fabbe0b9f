//! Private directories of running clusters, and what a dead cluster left behind.
//!
//! Every cluster owns one directory below `<tmp>/kagenti-local-cluster-<uid>` and holds a lock on a file in
//! it for as long as its supervisor lives. A directory whose lock is free belongs to a dead supervisor
//! (`kill -9`, power loss) and is removed by the next one.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Uid;

/// Name of the lock file in a cluster's directory.
const LOCK: &str = "lock";

/// A cluster's own directory; removed when dropped.
#[derive(Debug)]
pub(crate) struct WorkDir {
    path: PathBuf,
    _lock: File,
}

impl WorkDir {
    /// Makes a new directory, readable by this user only.
    pub(crate) fn create() -> Result<Self> {
        let base = base_dir()?;
        let name = format!("{}-{:08x}", std::process::id(), unique());
        // Locked under a name that sweepers ignore, then renamed: nobody ever sees it unlocked.
        let hidden = base.join(format!(".{name}"));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&hidden)
            .with_context(|| format!("creating {}", hidden.display()))?;
        let lock = File::create(hidden.join(LOCK)).context("creating the cluster's lock file")?;
        lock.lock().context("locking the cluster's directory")?;
        let path = base.join(name);
        fs::rename(&hidden, &path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { path, _lock: lock })
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the directories of dead clusters; `before` sees each of them first, to take down what else
/// they made. Never fails: a leftover is a nuisance, not a reason not to start.
pub(crate) fn sweep(mut before: impl FnMut(&Path)) {
    let Ok(entries) = base_dir().and_then(|base| fs::read_dir(base).context("listing")) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden || !path.is_dir() {
            continue;
        }
        let Ok(lock) = File::open(path.join(LOCK)) else { continue };
        if lock.try_lock().is_ok() {
            before(&path);
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// `<tmp>/kagenti-local-cluster-<uid>`, made for this user alone.
pub(crate) fn base_dir() -> Result<PathBuf> {
    let uid = Uid::current();
    let base = std::env::temp_dir().join(format!("kagenti-local-cluster-{uid}"));
    match fs::DirBuilder::new().mode(0o700).create(&base) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("creating {}", base.display()));
        }
        _ => {}
    }
    let meta = fs::symlink_metadata(&base).with_context(|| format!("reading {}", base.display()))?;
    ensure!(
        meta.is_dir() && meta.uid() == uid.as_raw(),
        "{} is not a directory of this user; remove it or set TMPDIR",
        base.display()
    );
    Ok(base)
}

/// Different for each call in a process and very likely between processes.
pub(crate) fn unique() -> u32 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::time::Instant::now()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unlocked_directories_are_swept() {
        let alive = WorkDir::create().expect("a directory");
        let dead = base_dir().expect("base").join(format!("0-{:08x}", unique()));
        fs::create_dir(&dead).expect("a dead cluster's directory");
        File::create(dead.join(LOCK)).expect("its lock file");
        let mut seen = Vec::new();
        sweep(|path| seen.push(path.to_owned()));
        assert!(alive.path().exists());
        assert!(!dead.exists());
        assert!(seen.contains(&dead) && !seen.contains(&alive.path().to_owned()));
        let path = alive.path().to_owned();
        drop(alive);
        assert!(!path.exists());
    }
}
