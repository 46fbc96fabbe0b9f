//! `docs/client-registration-failures.md` against the program: every reason is explained, and nothing else is.

#![allow(clippy::expect_used, reason = "a test says what it expects, and panics otherwise")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use client_registration_ctl::reason::Reason;

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    fs::read_to_string(path).expect("a page")
}

#[test]
fn every_reason_is_explained_and_nothing_else_is() {
    let said: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    let guide = page("client-registration-failures.md");
    let explained: BTreeSet<&str> = guide.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(said, explained, "left: the program, right: the guide");

    let table = page("client-registration-ctl.md");
    let missing: Vec<&str> = Reason::ALL
        .iter()
        .filter(|reason| !reason.is_said_by_events_only())
        .map(|reason| reason.as_str())
        .filter(|reason| {
            !table.lines().any(|line| line.starts_with("| ") && line.contains(&format!("`{reason}`")))
        })
        .collect();
    assert!(missing.is_empty(), "the table of conditions lacks {missing:?}");
}
