//! The programs of the control plane, and Helm: where they are looked for and which Go module builds them.
//!
//! Order: `KUBEBUILDER_ASSETS` (per program, it usually has only three of them), the per-user cache, a
//! build with the Go toolchain into that cache. The cache key is the content of the go.mod and go.sum, so
//! a new pin builds anew and an old one stays usable.

mod gobuild;
pub mod preflight;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::terminal::Terminal;

/// The name of the product's directory in the user's cache.
const CACHE_NAME: &str = "kagenti-operator";

/// A program of the control plane, or one that is used against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// Storage of the API server.
    Etcd,
    /// The API server.
    KubeApiserver,
    /// Deployments, ReplicaSets, Jobs, garbage collection, namespaces.
    KubeControllerManager,
    /// Puts Pods on nodes.
    KubeScheduler,
    /// Plays the kubelets of the fake nodes.
    Kwok,
    /// The command line client.
    Kubectl,
    /// Renders, checks and installs the charts; no cluster starts it.
    Helm,
    /// Runs the Pods of a real node.
    Kubelet,
    /// Leads Service addresses to Pods on a real node.
    KubeProxy,
    /// Resolves names for the Pods of a real node.
    Coredns,
}

impl Program {
    /// Every program of a control plane, in the order in which they are shown.
    pub const ALL: [Self; 6] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::Kwok,
        Self::Kubectl,
    ];

    /// What a real node needs beside them.
    pub const NODE: [Self; 3] = [Self::Kubelet, Self::KubeProxy, Self::Coredns];

    /// The file name, also the name shown to people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::Kwok => "kwok",
            Self::Kubectl => "kubectl",
            Self::Helm => "helm",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::Coredns => "coredns",
        }
    }

    /// The module that builds it.
    pub(crate) fn tool(self) -> &'static Tool {
        match self {
            Self::Etcd => &ETCD,
            Self::Kwok => &KWOK,
            Self::Helm => &HELM,
            Self::Coredns => &COREDNS,
            _ => &KUBERNETES,
        }
    }

    /// The Go package with its `main`.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::Etcd => "go.etcd.io/etcd/server/v3",
            Self::KubeApiserver => "k8s.io/kubernetes/cmd/kube-apiserver",
            Self::KubeControllerManager => "k8s.io/kubernetes/cmd/kube-controller-manager",
            Self::KubeScheduler => "k8s.io/kubernetes/cmd/kube-scheduler",
            Self::Kwok => "sigs.k8s.io/kwok/cmd/kwok",
            Self::Kubectl => "k8s.io/kubernetes/cmd/kubectl",
            Self::Helm => "helm.sh/helm/v3/cmd/helm",
            Self::Kubelet => "k8s.io/kubernetes/cmd/kubelet",
            Self::KubeProxy => "k8s.io/kubernetes/cmd/kube-proxy",
            Self::Coredns => ".",
        }
    }
}

/// A pinned Go module of `e2e/toolchain`. The files are compiled in, so the built program is enough.
#[derive(Debug)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) go_mod: &'static str,
    pub(crate) go_sum: &'static str,
    /// A `main` of our own, where the module's would bring far more than is used.
    pub(crate) main_go: Option<&'static str>,
    /// What is built into one directory at once; programs of a module share most of their packages.
    pub(crate) programs: &'static [Program],
    /// The module whose version the linker stamps into the programs.
    version_of: Option<&'static str>,
    /// Values the linker puts into variables beside the version.
    variables: &'static [(&'static str, &'static str)],
}

static KUBERNETES: Tool = Tool {
    name: "kubernetes",
    go_mod: include_str!("../../toolchain/kubernetes/go.mod"),
    go_sum: include_str!("../../toolchain/kubernetes/go.sum"),
    main_go: None,
    programs: &[
        Program::KubeApiserver,
        Program::KubeControllerManager,
        Program::KubeScheduler,
        Program::Kubectl,
        Program::Kubelet,
        Program::KubeProxy,
    ],
    version_of: Some("k8s.io/kubernetes"),
    variables: &[],
};
static ETCD: Tool = Tool {
    name: "etcd",
    go_mod: include_str!("../../toolchain/etcd/go.mod"),
    go_sum: include_str!("../../toolchain/etcd/go.sum"),
    main_go: None,
    programs: &[Program::Etcd],
    version_of: None,
    variables: &[],
};
static KWOK: Tool = Tool {
    name: "kwok",
    go_mod: include_str!("../../toolchain/kwok/go.mod"),
    go_sum: include_str!("../../toolchain/kwok/go.sum"),
    main_go: None,
    programs: &[Program::Kwok],
    version_of: None,
    variables: &[],
};
static HELM: Tool = Tool {
    name: "helm",
    go_mod: include_str!("../../toolchain/helm/go.mod"),
    go_sum: include_str!("../../toolchain/helm/go.sum"),
    main_go: None,
    programs: &[Program::Helm],
    version_of: None,
    // A Helm built from its module believes in Kubernetes 1.20 while it only renders, and refuses our charts.
    variables: &[
        ("helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor", "36"),
        ("helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor", "36"),
    ],
};

static COREDNS: Tool = Tool {
    name: "coredns",
    go_mod: include_str!("../../toolchain/coredns/go.mod"),
    go_sum: include_str!("../../toolchain/coredns/go.sum"),
    main_go: Some(include_str!("../../toolchain/coredns/main.go")),
    programs: &[Program::Coredns],
    version_of: None,
    variables: &[],
};

impl Tool {
    /// `<name>-<16 hex digits of the pins' hash>`.
    pub(crate) fn key(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.go_mod);
        hash.update(self.go_sum);
        hash.update(self.main_go.unwrap_or_default());
        hash.update(self.linker_flags());
        let digest = hex::encode(hash.finalize());
        format!("{}-{}", self.name, digest.get(..16).unwrap_or(&digest))
    }

    /// Flags for the Go linker: no debug information, and the version Kubernetes programs report.
    pub(crate) fn linker_flags(&self) -> String {
        let mut flags = "-s -w".to_owned();
        if let Some(version) = self.version_of.and_then(|module| required_version(self.go_mod, module)) {
            let mut parts = version.trim_start_matches('v').split('.');
            let (major, minor) = (parts.next().unwrap_or("1"), parts.next().unwrap_or("0"));
            for (name, value) in [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)] {
                let _ = write!(flags, " -X k8s.io/component-base/version.{name}={value}");
            }
        }
        for (name, value) in self.variables {
            let _ = write!(flags, " -X {name}={value}");
        }
        flags
    }
}

/// The version that a go.mod requires of a module.
fn required_version<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        let (name, version) = (words.next()?, words.next()?);
        (name == module && version.starts_with('v')).then_some(version)
    })
}

/// Paths of the programs that a cluster needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Programs(BTreeMap<Program, PathBuf>);

impl Programs {
    /// The path of a program.
    pub fn path(&self, program: Program) -> Result<&Path> {
        self.0
            .get(&program)
            .map(PathBuf::as_path)
            .with_context(|| format!("{} was not resolved for this cluster", program.name()))
    }

    /// Finds every wanted program and builds those that are nowhere, showing progress on `terminal`.
    /// Blocks for minutes the first time. Fails with what the machine lacks and how to install it.
    pub fn ensure(wanted: &[Program], terminal: Terminal) -> Result<Self> {
        let cache = cache_dir()?;
        let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
        let mut found = Self::locate(wanted, assets.as_deref(), &cache);
        let missing: Vec<Program> = wanted.iter().copied().filter(|p| !found.0.contains_key(p)).collect();
        if !missing.is_empty() {
            gobuild::build(&missing, &cache, terminal)?;
            found = Self::locate(wanted, assets.as_deref(), &cache);
        }
        for program in wanted {
            found.path(*program)?;
        }
        Ok(found)
    }

    /// The wanted programs that exist already.
    fn locate(wanted: &[Program], assets: Option<&Path>, cache: &Path) -> Self {
        let mut found = BTreeMap::new();
        for program in wanted {
            let given = assets.map(|dir| dir.join(program.name()));
            let cached = cached_path(cache, *program);
            if let Some(path) = given.into_iter().chain([cached]).find(|path| path.is_file()) {
                found.insert(*program, path);
            }
        }
        Self(found)
    }
}

/// Where a built program lives.
pub(crate) fn cached_path(cache: &Path, program: Program) -> PathBuf {
    cache.join("toolchain").join(program.tool().key()).join("bin").join(program.name())
}

/// `$XDG_CACHE_HOME/kagenti-operator`, else `~/.cache/kagenti-operator`.
pub fn cache_dir() -> Result<PathBuf> {
    let absolute =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    Ok(base.context("neither XDG_CACHE_HOME nor HOME is an absolute path; set one of them")?.join(CACHE_NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_programs_report_the_pinned_version() {
        let version = required_version(KUBERNETES.go_mod, "k8s.io/kubernetes").expect("pinned");
        assert!(KUBERNETES.linker_flags().contains(&format!("gitVersion={version}")));
        assert!(KUBERNETES.linker_flags().ends_with("gitMinor=36"), "{}", KUBERNETES.linker_flags());
    }

    #[test]
    fn helm_renders_for_the_kubernetes_that_is_built_beside_it() {
        let flags = KUBERNETES.linker_flags();
        for (_, minor) in HELM.variables {
            assert!(flags.contains(&format!("gitMinor={minor}")), "{flags}");
        }
        assert!(HELM.linker_flags().contains("chartutil.k8sVersionMinor=36"));
    }

    #[test]
    fn keys_follow_the_pins() {
        let other = Tool { go_mod: "module x\n", ..ETCD };
        assert_ne!(other.key(), ETCD.key());
        assert!(ETCD.key().starts_with("etcd-"));
    }

    #[test]
    fn every_staging_module_is_replaced_with_one_version() {
        let go_mod = KUBERNETES.go_mod;
        let replaced: Vec<&str> = go_mod.lines().filter(|line| line.contains(" => ")).collect();
        assert_eq!(replaced.len(), 33);
        let minor = required_version(go_mod, "k8s.io/kubernetes").expect("pinned").replacen("v1.", "v0.", 1);
        assert!(replaced.iter().all(|line| line.ends_with(&minor)), "{replaced:?}");
    }

    #[test]
    fn assets_win_over_the_cache() {
        let dir = tempfile::tempdir().expect("a directory");
        let assets = dir.path().join("assets");
        let cache = dir.path().join("cache");
        let cached = cached_path(&cache, Program::Etcd);
        std::fs::create_dir_all(&assets).expect("assets");
        std::fs::create_dir_all(cached.parent().expect("a parent")).expect("cache");
        std::fs::write(&cached, "").expect("cached");
        let wanted = [Program::Etcd, Program::Kwok];
        let found = Programs::locate(&wanted, Some(&assets), &cache);
        assert_eq!(found.path(Program::Etcd).expect("etcd"), cached);
        assert!(found.path(Program::Kwok).is_err());
        std::fs::write(assets.join("etcd"), "").expect("given");
        let found = Programs::locate(&wanted, Some(&assets), &cache);
        assert_eq!(found.path(Program::Etcd).expect("etcd"), assets.join("etcd"));
    }
}
