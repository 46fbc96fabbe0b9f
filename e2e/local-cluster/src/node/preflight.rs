//! What a machine needs for a real node, and how it gets it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::programs::preflight::Check;
use crate::terminal::Terminal;

/// Programs by the Debian package that brings them.
const PROGRAMS: [(&str, &str); 7] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("iptables-restore", "iptables"),
    ("ip", "iproute2"),
];
/// The package of the plugins that connect Pods.
const PLUGINS_PACKAGE: &str = "containernetworking-plugins";
/// Where Debian, most others, and Fedora keep them.
const PLUGIN_DIRS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];
/// The ones that are used.
const PLUGINS: [&str; 4] = ["ptp", "host-local", "portmap", "loopback"];
/// Where system programs are, beside `PATH`.
const SYSTEM_DIRS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"];

/// The directory with every plugin.
pub(super) fn plugins_dir() -> Result<PathBuf> {
    let complete = |dir: &&&str| PLUGINS.iter().all(|plugin| Path::new(dir).join(plugin).is_file());
    let found = PLUGIN_DIRS.iter().find(complete).with_context(|| {
        format!("no directory has the CNI plugins {}; install {PLUGINS_PACKAGE}", PLUGINS.join(", "))
    })?;
    Ok(found.into())
}

/// Looks for everything: Linux, root, programs, plugins, overlay mounts.
pub fn run() -> Vec<Check> {
    let root = nix::unistd::Uid::effective().is_root();
    let mut checks = vec![
        Check {
            name: "Linux".to_owned(),
            outcome: if cfg!(target_os = "linux") {
                Ok("namespaces, cgroups".to_owned())
            } else {
                Err("a real node needs Linux".to_owned())
            },
        },
        Check {
            name: "root".to_owned(),
            outcome: if root {
                Ok("mounts, namespaces, iptables".to_owned())
            } else {
                Err("a real node needs root: run it with sudo".to_owned())
            },
        },
    ];
    for (program, package) in PROGRAMS {
        let outcome = match find(program) {
            Some(path) => Ok(path.display().to_string()),
            None => Err(format!("{program} is missing: install the package {package}")),
        };
        checks.push(Check { name: program.to_owned(), outcome });
    }
    let plugins = plugins_dir().map(|dir| dir.display().to_string()).map_err(|error| error.to_string());
    checks.push(Check { name: "CNI plugins".to_owned(), outcome: plugins });
    checks
}

/// Makes sure that a node can be started: as root on Debian and its relatives missing packages are installed, elsewhere the
/// error names everything that is missing.
pub fn ensure(terminal: Terminal) -> Result<()> {
    let packages = missing_packages();
    if !packages.is_empty() && nix::unistd::Uid::effective().is_root() && find("apt-get").is_some() {
        install(&packages, terminal)?;
    }
    let missing: Vec<String> = run().into_iter().filter_map(|check| check.outcome.err()).collect();
    if !missing.is_empty() {
        bail!("this machine lacks something for a real node:\n  - {}", missing.join("\n  - "));
    }
    Ok(())
}

/// Debian packages of what was not found.
fn missing_packages() -> Vec<&'static str> {
    let programs = PROGRAMS.iter().filter(|(program, _)| find(program).is_none());
    let mut packages: Vec<&str> = programs.map(|(_, package)| *package).collect();
    packages.extend(plugins_dir().is_err().then_some(PLUGINS_PACKAGE));
    packages.dedup();
    packages
}

fn install(packages: &[&str], terminal: Terminal) -> Result<()> {
    let task = terminal.task(&format!("installing {}", packages.join(", ")));
    let apt = |args: &[&str]| -> Result<()> {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        let output = command.output().context("starting apt-get")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`apt-get {}` ended with {}:\n{}", args.join(" "), output.status, said.trim());
        }
        Ok(())
    };
    let wanted = [&["install", "--yes", "--no-install-recommends"], packages].concat();
    // The lists of a fresh machine are empty or old.
    let installed = apt(&wanted).or_else(|_| apt(&["update"]).and_then(|()| apt(&wanted)));
    match installed {
        Ok(()) => task.done(),
        Err(_) => task.cleared(),
    }
    installed
}

/// Where a program is.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(SYSTEM_DIRS.iter().map(PathBuf::from));
    dirs.map(|dir| dir.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        for check in run() {
            if let (Err(problem), Some((program, package))) =
                (check.outcome, PROGRAMS.iter().find(|(program, _)| *program == check.name))
            {
                assert!(problem.contains(program) && problem.contains(package), "{problem}");
            }
        }
        assert!(find("no-such-program-here").is_none());
        assert!(find("sh").is_some());
    }
}
