//! What a machine needs before the first run, checked before minutes are spent.

use std::process::Command;

use anyhow::{Result, bail};

use super::Tool;

/// Where the Go toolchain is to be had.
const GO_DOWNLOAD: &str = "install it from https://go.dev/dl/";
/// How Debian and its relatives install what a C build needs.
const BUILD_ESSENTIAL: &str =
    "Debian, Ubuntu: apt-get install build-essential; Fedora: dnf install gcc make perl";

/// One thing that was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked for.
    pub name: String,
    /// The version found, or what is missing and how to install it.
    pub outcome: Result<String, String>,
}

/// Looks for everything that the first run needs: the Go toolchain (at least what the pinned modules
/// name), a C compiler, make, perl and cargo.
pub fn run() -> Vec<Check> {
    let tools: [&Tool; 3] = [&super::KUBERNETES, &super::ETCD, &super::KWOK];
    checks(&tools)
}

fn checks(tools: &[&Tool]) -> Vec<Check> {
    let mut checks = vec![go(tools)];
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    checks.push(program("C compiler", &cc, "--version", BUILD_ESSENTIAL));
    checks.push(program("make", "make", "--version", BUILD_ESSENTIAL));
    checks.push(program("perl", "perl", "-v", BUILD_ESSENTIAL));
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    checks.push(program("cargo", &cargo, "--version", "install Rust from https://rustup.rs"));
    checks
}

/// Fails with everything that this machine lacks to build `tools` and the suite, before minutes are spent.
pub(super) fn require(tools: &[&Tool]) -> Result<()> {
    let missing: Vec<String> = checks(tools).into_iter().filter_map(|check| check.outcome.err()).collect();
    if !missing.is_empty() {
        let list = missing.join("\n  - ");
        bail!(
            "the cluster programs must be built once, and this machine lacks something for it:\n  - {list}\n\
             To do without, set KUBEBUILDER_ASSETS to a directory that holds the programs, or use a running \
             cluster with --kubeconfig"
        );
    }
    Ok(())
}

fn go(tools: &[&Tool]) -> Check {
    let wanted = tools.iter().filter_map(|tool| go_directive(tool.go_mod)).max().unwrap_or((1, 0, 0));
    let (major, minor, patch) = wanted;
    let name = format!("Go {major}.{minor} or newer");
    let remedy = format!("{GO_DOWNLOAD} (version {major}.{minor}.{patch} or newer)");
    let output = Command::new("go").args(["env", "GOVERSION"]).current_dir(std::env::temp_dir()).output();
    let outcome = match output {
        Err(error) => Err(format!("the Go toolchain is missing ({error}): {remedy}")),
        Ok(output) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(format!("`go env GOVERSION` failed ({said}): {remedy}"))
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            match parse_version(said.trim_start_matches("go")) {
                Some(version) if version >= wanted => Ok(said),
                _ => Err(format!("the Go toolchain is {said}: {remedy}")),
            }
        }
    };
    Check { name, outcome }
}

fn program(name: &str, command: &str, argument: &str, remedy: &str) -> Check {
    let outcome = match Command::new(command).arg(argument).output() {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            Ok(text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or(command).to_owned())
        }
        Ok(output) => Err(format!("`{command} {argument}` ended with {}: {remedy}", output.status)),
        Err(error) => Err(format!("`{command}` cannot be run ({error}): {remedy}")),
    };
    Check { name: name.to_owned(), outcome }
}

/// The version in the `go` line of a go.mod.
fn go_directive(go_mod: &str) -> Option<(u32, u32, u32)> {
    parse_version(go_mod.lines().find_map(|line| line.strip_prefix("go "))?)
}

/// `1.26`, `1.26.3`, `1.27rc1` and `1.26.3-X:something` all count.
fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let digits = |part: &str| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part.get(..end)?.parse::<u32>().ok()
    };
    let mut parts = text.trim().split('.');
    let major = digits(parts.next()?)?;
    let minor = digits(parts.next()?)?;
    Some((major, minor, parts.next().and_then(digits).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("1.26", Some((1, 26, 0)))]
    #[case("1.26.8", Some((1, 26, 8)))]
    #[case("1.27rc1", Some((1, 27, 0)))]
    #[case("1.26.3-X:nodwarf5", Some((1, 26, 3)))]
    #[case("devel +abc", None)]
    fn versions(#[case] text: &str, #[case] parsed: Option<(u32, u32, u32)>) {
        assert_eq!(parse_version(text), parsed);
    }

    #[test]
    fn a_missing_program_names_its_remedy() {
        let check = program("make", "no-such-program-here", "--version", "install make");
        let problem = check.outcome.expect_err("missing");
        assert!(problem.contains("no-such-program-here") && problem.contains("install make"), "{problem}");
    }

    #[test]
    fn the_modules_name_a_go_version() {
        assert!(go_directive(super::super::KUBERNETES.go_mod).expect("a go line") >= (1, 26, 0));
    }
}
