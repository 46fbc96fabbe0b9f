//! Platform file and feature gates (webhook §7.1, §7.2): one immutable snapshot, swapped when the
//! files change (webhook §15).

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use api_types::{gates::FeatureGates, platform::PlatformConfig, yaml::Parsed};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::metrics::{FileLabel, Metrics, ReloadLabels};

/// How often the files are looked at. A change counts once it has been seen twice, so a volume
/// that is being written is not read half-way: the debounce of one second.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Larger files are not read.
const MAX_FILE: u64 = 3 * 1024 * 1024 / 2;

/// What one admission uses from beginning to end.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Feature gates.
    pub gates: FeatureGates,
    /// Platform configuration.
    pub platform: PlatformConfig,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file's content is invalid.
    #[error("{}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Key or position, and what is wrong there.
        message: String,
    },
}

/// Which of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Platform,
    Gates,
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Gates => "feature-gates",
        }
    }
}

#[derive(Debug)]
struct File {
    kind: Kind,
    path: PathBuf,
    /// The directory was there at start (webhook §15: otherwise the defaults stay).
    watched: bool,
    /// Content that is in use, or was found unusable.
    settled: Option<Vec<u8>>,
    /// Content seen once that differs from `settled`.
    candidate: Option<Vec<u8>>,
}

/// Holds the snapshot and keeps it up to date.
#[derive(Debug)]
pub struct Config {
    current: ArcSwap<Snapshot>,
    metrics: Arc<Metrics>,
}

/// Looks at the files; see [`Config::load`].
#[derive(Debug)]
pub struct Reloader {
    config: Arc<Config>,
    files: [File; 2],
}

impl Config {
    /// A fixed snapshot.
    pub fn fixed(snapshot: Snapshot, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { current: ArcSwap::from_pointee(snapshot), metrics })
    }

    /// Reads both files at start. A missing file means the compiled defaults; one that cannot be
    /// read or parsed is an error (exit 2).
    pub fn load(
        platform: &Path,
        gates: &Path,
        metrics: Arc<Metrics>,
    ) -> Result<(Arc<Self>, Reloader), ConfigError> {
        let config = Self::fixed(Snapshot::default(), metrics);
        let mut files = [(Kind::Platform, platform), (Kind::Gates, gates)].map(|(kind, path)| File {
            kind,
            path: path.to_owned(),
            watched: path.parent().is_some_and(Path::is_dir),
            settled: None,
            candidate: None,
        });
        for file in &mut files {
            let Some(content) = read(&file.path)? else {
                tracing::info!(file = %file.path.display(), "not there, compiled defaults are used");
                continue;
            };
            config.take(file.kind, &file.path, &content)?;
            file.settled = Some(content);
        }
        Ok((config.clone(), Reloader { config, files }))
    }

    /// The snapshot of this moment.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Parses one file's content and swaps the snapshot.
    fn take(&self, kind: Kind, path: &Path, content: &[u8]) -> Result<(), ConfigError> {
        let invalid = |message: String| ConfigError::Invalid { path: path.to_owned(), message };
        let text = std::str::from_utf8(content).map_err(|_| invalid("is not UTF-8".to_owned()))?;
        let mut next = Snapshot::clone(&self.current.load());
        let ignored = match kind {
            Kind::Platform => {
                let Parsed { value, ignored } =
                    PlatformConfig::parse(text).map_err(|e| invalid(e.to_string()))?;
                next.platform = value;
                ignored
            }
            Kind::Gates => {
                let Parsed { value, ignored } =
                    FeatureGates::parse(text).map_err(|e| invalid(e.to_string()))?;
                next.gates = value;
                ignored
            }
        };
        for line in &ignored {
            tracing::warn!(file = %path.display(), "{line}");
        }
        let file = FileLabel { file: kind.label() };
        self.metrics
            .config_ignored
            .get_or_create(&file)
            .set(i64::try_from(ignored.len()).unwrap_or(i64::MAX));
        self.metrics.config_read(kind.label(), Timestamp::now().as_second());
        self.current.store(Arc::new(next));
        Ok(())
    }
}

impl Reloader {
    /// Looks at the files every second until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => self.look(),
            }
        }
    }

    /// One look at both files.
    pub fn look(&mut self) {
        for file in self.files.iter_mut().filter(|file| file.watched) {
            // Gone or unreadable for the moment: keep what was good last.
            let Ok(Some(content)) = read(&file.path) else {
                file.candidate = None;
                continue;
            };
            if file.settled.as_ref() == Some(&content) {
                file.candidate = None;
                continue;
            }
            if file.candidate.as_ref() != Some(&content) {
                file.candidate = Some(content);
                continue;
            }
            let outcome = match self.config.take(file.kind, &file.path, &content) {
                Ok(()) => {
                    tracing::info!(file = %file.path.display(), "reloaded");
                    "ok"
                }
                Err(error) => {
                    tracing::warn!(%error, "not reloaded, the last good content stays in use");
                    "error"
                }
            };
            let labels = ReloadLabels { file: file.kind.label(), outcome };
            self.config.metrics.config_reloads.get_or_create(&labels).inc();
            file.settled = Some(content);
            file.candidate = None;
        }
    }
}

/// `None` = there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_FILE => {
            Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1.5 MiB")))
        }
        Ok(_) => std::fs::read(path).map(Some).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        _dir: tempfile::TempDir,
        platform: PathBuf,
        gates: PathBuf,
    }

    fn files() -> Files {
        let dir = tempfile::tempdir().unwrap();
        Files {
            platform: dir.path().join("config.yaml"),
            gates: dir.path().join("feature-gates.yaml"),
            _dir: dir,
        }
    }

    fn load(files: &Files) -> Result<(Arc<Config>, Reloader), ConfigError> {
        Config::load(&files.platform, &files.gates, Arc::default())
    }

    #[test]
    fn missing_files_mean_the_defaults_and_invalid_ones_an_error_at_start() {
        let files = files();
        let (config, _) = load(&files).unwrap();
        assert_eq!(config.snapshot().gates, FeatureGates::default());
        std::fs::write(&files.gates, "a: [").unwrap();
        let error = load(&files).unwrap_err().to_string();
        assert!(error.contains("feature-gates.yaml"), "{error}");
    }

    /// Webhook §15: a change is taken over, an invalid one and a deletion keep the last good state.
    #[test]
    fn a_reload_keeps_the_last_good_content() {
        let files = files();
        std::fs::write(&files.gates, "injectTools: true").unwrap();
        let (config, mut reloader) = load(&files).unwrap();
        assert!(config.snapshot().gates.inject_tools);
        let mut change = |text: Option<&str>| {
            match text {
                Some(text) => std::fs::write(&files.gates, text).unwrap(),
                None => std::fs::remove_file(&files.gates).unwrap(),
            }
            reloader.look();
            reloader.look();
            config.snapshot().gates
        };
        let all_false = "globalEnabled: false\ninjectTools: false";
        assert!(!change(Some(all_false)).global_enabled, "an explicit false means false");
        assert!(!change(Some("globalEnabled: [")).global_enabled);
        assert!(!change(None).global_enabled);
        assert!(change(Some("{}")).global_enabled, "missing keys mean the defaults");
    }

    #[test]
    fn a_change_is_taken_over_only_when_seen_twice() {
        let files = files();
        let (config, mut reloader) = load(&files).unwrap();
        std::fs::write(&files.gates, "injectTools: true").unwrap();
        reloader.look();
        assert!(!config.snapshot().gates.inject_tools, "may still be being written");
        reloader.look();
        assert!(config.snapshot().gates.inject_tools);
    }
}
