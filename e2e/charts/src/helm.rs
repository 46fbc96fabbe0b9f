//! Helm itself, on a copy of the charts with their dependencies in place.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use local_cluster::programs::{Program, Programs};
use local_cluster::terminal::Terminal;

use crate::Objects;

/// The components that have a chart, in the order of the umbrella.
pub const COMPONENTS: [&str; 6] =
    ["runtime-ctl", "card-ctl", "netpol-ctl", "mlflow-ctl", "authbridge-webhook", "client-registration-ctl"];
/// Folder of the umbrella.
pub const UMBRELLA: &str = "kagenti-operator";

/// What Helm said when it would not do as told.
#[derive(Clone, Debug)]
pub struct Refused(pub String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// The pinned Helm with a home of its own.
#[derive(Debug)]
pub struct Helm {
    program: PathBuf,
    home: tempfile::TempDir,
}

/// How many Helms run at a time: tests are many, CPUs are few, and each is done in a fraction of a second.
const AT_ONCE: usize = 2;
static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// A place among the [`AT_ONCE`].
struct Turn;

impl Turn {
    fn wait() -> Self {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running =
            ENDED.wait_while(running, |running| *running >= AT_ONCE).unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}

static HELM: OnceLock<Result<Helm, String>> = OnceLock::new();

/// The charts as they are in the repository.
pub fn charts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts")
}

/// The named value sets of a chart, sorted.
pub fn value_sets(chart: &str) -> Result<Vec<PathBuf>> {
    let folder = charts().join(chart).join("ci");
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

impl Helm {
    /// The one Helm of this test program, with packed charts; builds the program when it is nowhere.
    pub fn get() -> Result<&'static Self> {
        HELM.get_or_init(|| Self::set_up().map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|error| anyhow::anyhow!("{error}"))
    }

    fn set_up() -> Result<Self> {
        let programs = Programs::ensure(&[Program::Helm], Terminal::stderr())?;
        let program = programs.path(Program::Helm)?.to_owned();
        let home = tempfile::tempdir().context("a home for Helm")?;
        copy(&charts(), &home.path().join("charts"))?;
        let helm = Self { program, home };
        helm.pack()?;
        Ok(helm)
    }

    /// Puts the folders of the dependencies into each chart; what `helm dependency build` does with archives.
    fn pack(&self) -> Result<()> {
        let source = charts();
        for entry in fs::read_dir(&source)? {
            let name = entry?.file_name();
            let chart = self.path(&name.to_string_lossy());
            let manifest = fs::read_to_string(chart.join("Chart.yaml"))?;
            for line in manifest.lines().filter_map(|line| line.trim().strip_prefix("repository: file://../"))
            {
                copy(&source.join(line), &chart.join("charts").join(line))?;
            }
        }
        Ok(())
    }

    /// The packed copy of a chart.
    pub fn path(&self, chart: &str) -> PathBuf {
        self.home.path().join("charts").join(chart)
    }

    /// Runs Helm without any cluster.
    pub fn run(&self, args: &[&str]) -> Result<Output> {
        let _turn = Turn::wait();
        self.command(Path::new("/dev/null"), args).output().context("starting Helm")
    }

    /// Helm against a cluster, or against none with an empty kubeconfig.
    pub fn command(&self, kubeconfig: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("KUBECONFIG", kubeconfig).current_dir(self.home.path());
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(name, self.home.path().join(name));
        }
        command
    }

    /// `helm template <release> <chart> -n <namespace> ...`; an error is what Helm said.
    pub fn template(
        &self,
        chart: &str,
        release: &str,
        namespace: &str,
        args: &[&str],
    ) -> Result<Objects, Refused> {
        let path = self.path(chart).display().to_string();
        let mut all = vec!["template", release, &path, "--namespace", namespace];
        all.extend(args);
        let output = self.run(&all).map_err(|error| Refused(format!("{error:#}")))?;
        if !output.status.success() {
            return Err(Refused(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        Objects::parse(&String::from_utf8_lossy(&output.stdout))
            .map_err(|error| Refused(format!("{error:#}")))
    }

    /// The umbrella as release `kagenti-operator` in `kagenti-system`.
    pub fn suite(&self, args: &[&str]) -> Result<Objects, Refused> {
        self.template(UMBRELLA, "kagenti-operator", "kagenti-system", args)
    }

    /// How long [`Helm::suite`] takes once it is its turn.
    pub fn time_of_suite(&self, args: &[&str]) -> Result<Duration> {
        let chart = self.path(UMBRELLA).display().to_string();
        let mut all = vec!["template", "kagenti-operator", &chart, "--namespace", "kagenti-system"];
        all.extend(args);
        let _turn = Turn::wait();
        let start = Instant::now();
        let output = self.command(Path::new("/dev/null"), &all).output().context("starting Helm")?;
        let taken = start.elapsed();
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(taken)
    }

    /// Runs Helm against a cluster and returns what it printed.
    pub fn on(&self, kubeconfig: &Path, args: &[&str]) -> Result<String> {
        let output = self.command(kubeconfig, args).output().context("starting Helm")?;
        if !output.status.success() {
            bail!("helm {} failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Copies a folder without what `helm dependency` left in a working tree.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let packed = name == "charts" && from.join("Chart.yaml").is_file();
        if packed || name == "Chart.lock" {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to.join(name))?;
        } else {
            fs::copy(&path, to.join(name)).with_context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}
