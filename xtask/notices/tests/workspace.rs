//! The notices of the real programs: what is linked is in them, and nothing else.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use notices::{Notices, ORDER};
use serde_json::Value;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Read once for all tests.
static NOTICES: LazyLock<Notices> = LazyLock::new(read);

fn read() -> Notices {
    Notices::read(&workspace(), &target()).expect("the workspace")
}

fn cargo(arguments: &[&str]) -> String {
    let program = std::env::var_os("CARGO").expect("set by cargo");
    let output = Command::new(program).args(arguments).current_dir(workspace()).output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Every program with an image, and the plugin.
fn programs() -> Vec<String> {
    let dockerfile = std::fs::read_to_string(workspace().join("deploy/Dockerfile")).expect("the Dockerfile");
    let targets = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM base AS "));
    let programs: Vec<String> = targets.map(str::to_owned).chain(["kubectl-kagenti".to_owned()]).collect();
    assert!(programs.len() > 5, "{programs:?}");
    programs
}

/// What a program links when it alone chooses features: the least that any build has.
fn least(program: &str) -> BTreeSet<String> {
    let target = target();
    let tree = cargo(&[
        "tree",
        "--locked",
        "--edges=normal,no-proc-macro",
        "--prefix=none",
        "--format={p}",
        "--target",
        &target,
        "--package",
        program,
    ]);
    // The workspace's own crates have a path behind their version.
    let foreign = tree.lines().filter(|line| !line.contains(" (/") && !line.is_empty());
    let name = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, version) = (words.next().expect("a name"), words.next().expect("a version"));
        format!("{name} {}", version.trim_start_matches('v'))
    };
    foreign.map(name).collect()
}

/// What could be linked with the features of everything, tests included: the most that any build has.
fn most(metadata: &Value, program: &str) -> BTreeSet<String> {
    let list = |value: &Value| value.as_array().cloned().expect("a list");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let packages: BTreeMap<String, Value> =
        list(&metadata["packages"]).into_iter().map(|package| (text(&package["id"]), package)).collect();
    let nodes: BTreeMap<String, Value> =
        list(&metadata["resolve"]["nodes"]).into_iter().map(|node| (text(&node["id"]), node)).collect();
    let is_macro = |id: &str| {
        list(&packages[id]["targets"])
            .iter()
            .any(|target| list(&target["kind"]).contains(&"proc-macro".into()))
    };
    let root = packages.iter().find(|(_, package)| package["name"] == program).expect("a package").0;
    let mut found = BTreeSet::from([root.clone()]);
    let mut open = vec![root.clone()];
    while let Some(id) = open.pop() {
        for edge in list(&nodes[&id]["deps"]) {
            let to = text(&edge["pkg"]);
            let normal = list(&edge["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            if normal && !is_macro(&to) && found.insert(to.clone()) {
                open.push(to);
            }
        }
    }
    let foreign = found.iter().map(|id| &packages[id]).filter(|package| !package["source"].is_null());
    foreign.map(|package| format!("{} {}", text(&package["name"]), text(&package["version"]))).collect()
}

/// Every part that a text applies to.
fn listed(text: &str) -> BTreeSet<String> {
    let mut parts = BTreeSet::new();
    for block in text.split("\napplies to:\n").skip(1) {
        let lines = block.lines().take_while(|line| line.starts_with("- ") || line.starts_with("    "));
        let titles =
            lines.filter_map(|line| line.strip_prefix("- ")?.rsplit_once(", ").map(|(title, _)| title));
        parts.extend(titles.map(str::to_owned));
    }
    parts
}

#[test]
fn packaging_20_notices_name_what_is_linked_and_nothing_else() {
    let notices = &*NOTICES;
    let metadata = cargo(&["metadata", "--locked", "--format-version=1", "--filter-platform", &target()]);
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    for program in programs() {
        let text = notices.text(&program).expect(&program);
        let listed = listed(&text);
        let (libraries, crates): (BTreeSet<_>, BTreeSet<_>) = listed
            .into_iter()
            .partition(|part| part.contains("standard library of Rust") || part == "The GNU C Library");
        let crates: BTreeSet<String> = crates;
        let missing: Vec<_> = least(&program).difference(&crates).cloned().collect();
        assert!(missing.is_empty(), "{program} links what its notices do not name: {missing:?}");
        let native: BTreeSet<String> =
            crates.iter().filter(|name| name.starts_with("openssl-src ")).cloned().collect();
        let most = most(&metadata, &program);
        let surplus: Vec<_> = crates.difference(&most).filter(|name| !native.contains(*name)).collect();
        assert!(surplus.is_empty(), "{program} does not link {surplus:?}");
        assert_eq!(crates.into_iter().collect::<Vec<_>>(), notices.crates(&program).expect("crates"));
        assert!(libraries.len() > 5, "{program}: {libraries:?}");
        // OpenSSL is what a build script compiles, and only those two verify or sign with it.
        let verifies = ["card-ctl", "agentcard-signer"].contains(&program.as_str());
        assert_eq!(native.len(), usize::from(verifies), "{program}: {native:?}");
        // card-ctl has 25 MiB and little to spare.
        assert!(text.len() < 400 * 1024, "{program}: {} bytes", text.len());
    }
}

/// What only builds, derives or tests leaves nothing behind.
#[test]
fn packaging_20_notices_leave_out_what_only_builds() {
    let crates = NOTICES.crates("card-ctl").expect("crates");
    let has = |name: &str| crates.iter().any(|title| title.split(' ').next() == Some(name));
    for name in ["tokio", "kube", "serde", "ring", "libmimalloc-sys", "openssl-src"] {
        assert!(has(name), "{name}");
    }
    for name in ["serde_derive", "tokio-macros", "syn", "cc", "rstest", "insta", "card-ctl", "api-types"] {
        assert!(!has(name), "{name}");
    }
}

#[test]
fn the_same_sources_give_the_same_text() {
    let text = |notices: &Notices| notices.text("card-ctl").expect("a text");
    assert_eq!(text(&read()), text(&NOTICES));
}

/// What the notices may choose is what may enter the dependency tree.
#[test]
fn the_licences_are_those_that_cargo_deny_allows() {
    let rules = std::fs::read_to_string(workspace().join("deny.toml")).expect("deny.toml");
    let list = regex::Regex::new(r"(?s)\[licenses\].*?allow = \[(.*?)\]").expect("an expression");
    let quoted = regex::Regex::new("\"(.*?)\"").expect("an expression");
    let allowed = list.captures(&rules).expect("a list").get(1).expect("a list").as_str();
    let allowed: BTreeSet<&str> =
        quoted.captures_iter(allowed).filter_map(|found| found.get(1)).map(|found| found.as_str()).collect();
    assert_eq!(allowed, BTreeSet::from(ORDER));
}
