//! Generated files are checked in and never drift from their sources; pages name what the programs show.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust sources below a folder, as one text.
fn sources(folder: &Path, into: &mut String) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, into)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push_str(&std::fs::read_to_string(path)?);
        }
    }
    Ok(())
}

#[test]
fn every_generated_file_is_up_to_date() {
    let differing: Vec<_> = xtask::differing(&root()).unwrap().into_iter().map(|file| file.path).collect();
    assert!(differing.is_empty(), "run `cargo xtask generate`: {differing:?}");
}

/// Names of registered metrics stand in the sources as literals without `_total`.
#[test]
fn every_metric_is_documented() {
    let literal = regex::Regex::new(
        r#""((?:kagenti|controller_runtime|workqueue|rest_client|leader_election|process)_[a-z_]+)""#,
    )
    .unwrap();
    for (component, page) in [
        ("controller-kit", "docs/operations.md"),
        ("runtime-ctl", "docs/runtime-ctl.md"),
        ("authbridge-webhook", "docs/authbridge-webhook.md"),
    ] {
        let mut text = String::new();
        sources(&root().join(format!("crates/{component}/src")), &mut text).unwrap();
        let names: BTreeSet<&str> =
            literal.captures_iter(&text).map(|c| c.get(1).unwrap().as_str()).collect();
        assert!(!names.is_empty(), "{component} registers metrics");
        let documented = std::fs::read_to_string(root().join(page)).unwrap();
        let missing: Vec<_> = names.into_iter().filter(|name| !documented.contains(name)).collect();
        assert!(missing.is_empty(), "{page} lacks {missing:?}");
    }
}

/// Every condition reason and event that `names.rs` declares is explained on the page of runtime-ctl.
#[test]
fn every_reason_is_documented() {
    let names = std::fs::read_to_string(root().join("crates/api-types/src/names.rs")).unwrap();
    let reasons = names.split("pub mod reason {").nth(1).unwrap().split("\n}").next().unwrap();
    let value = regex::Regex::new(r#"&str = "([A-Za-z]+)";"#).unwrap();
    let documented = std::fs::read_to_string(root().join("docs/runtime-ctl.md")).unwrap();
    let missing: Vec<_> = value
        .captures_iter(reasons)
        .map(|c| c[1].to_owned())
        .filter(|r| !documented.contains(r.as_str()))
        .collect();
    assert!(missing.is_empty(), "docs/runtime-ctl.md lacks {missing:?}");
}
