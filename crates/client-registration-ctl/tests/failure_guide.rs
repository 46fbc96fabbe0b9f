//! `docs/client-registration-failures.md` against the program: every reason is explained, and nothing else is.

#![allow(clippy::expect_used, reason = "a test says what it expects, and panics otherwise")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Words that look like reasons and are none: what happened to a workload, the action of Events, values of others.
const NO_REASONS: [&str; 17] = [
    "Apply",
    "ClientAdopted",
    "ClientDeregistered",
    "ClientRegistered",
    "CredentialsRotated",
    "Failed",
    "False",
    "Opaque",
    "PascalCase",
    "RegisterClient",
    "Route",
    "Succeeded",
    "Suspended",
    "True",
    "Unknown",
    "Update",
    "Warning",
];
/// Explained, but said by Events only.
const ONLY_EVENTS: [&str; 2] = ["ConfigValueIgnored", "FederationUnavailable"];

/// Literals that could be a reason, in what is compiled into the program.
fn reasons(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).expect("the sources") {
        let path = entry.expect("a source").path();
        if path.is_dir() {
            reasons(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source");
        let program = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in program.split('"').skip(1).step_by(2).filter(|word| is_reason(word)) {
            found.insert(word.to_owned());
        }
    }
}

fn is_reason(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.contains(|c: char| c.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_alphanumeric())
        && !NO_REASONS.contains(&word)
}

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    fs::read_to_string(path).expect("a page")
}

#[test]
fn every_reason_is_explained_and_nothing_else_is() {
    let mut said = BTreeSet::new();
    reasons(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut said);
    assert!(said.len() > 20, "{said:?}");
    let guide = page("client-registration-failures.md");
    let explained: BTreeSet<String> =
        guide.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect();
    assert_eq!(said, explained, "left: the program, right: the guide");

    let table = page("client-registration-ctl.md");
    let missing: Vec<&String> = said
        .iter()
        .filter(|reason| !ONLY_EVENTS.contains(&reason.as_str()))
        .filter(|reason| {
            !table.lines().any(|line| line.starts_with("| ") && line.contains(&format!("`{reason}`")))
        })
        .collect();
    assert!(missing.is_empty(), "the table of conditions lacks {missing:?}");
}
