//! `card-ctl verify` and `card-ctl canonicalize` as a user runs them: output and exit codes.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test says what it expects, and panics otherwise"
)]

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// Test material of the trust crate.
const VECTORS: &str = include_str!("../../agent-trust/tests/vectors/card-vectors.json");

struct Files {
    folder: TempDir,
    vectors: Value,
}

impl Files {
    fn new() -> Self {
        let vectors = serde_json::from_str(VECTORS).expect("JSON");
        Self { folder: TempDir::new().expect("a folder"), vectors }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    fn card(&self, id: &str) -> PathBuf {
        let cases = self.vectors["verification"].as_array().expect("cases");
        let case = cases.iter().find(|case| case["id"] == id).expect("the case");
        self.write("card.json", case["card"].as_str().expect("text"))
    }

    fn bundle(&self, name: &str) -> PathBuf {
        self.write("bundle.json", self.vectors["trustBundles"][name]["text"].as_str().expect("text"))
    }

    fn verify(&self, card: &str, bundle: &str, more: &[&str]) -> Output {
        run(Command::new(env!("CARGO_BIN_EXE_card-ctl"))
            .args([
                "verify",
                "--trust-domain",
                "dev.cluster.local",
                "--now",
                "2026-06-01T00:00:00Z",
                "--card",
            ])
            .arg(self.card(card))
            .arg("--trust-bundle")
            .arg(self.bundle(bundle))
            .args(more))
    }
}

fn run(command: &mut Command) -> Output {
    command.output().expect("card-ctl runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn verified_cards_exit_0() {
    let output = Files::new().verify("unsigned-extra-members", "spiffe-json", &["-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["verified"], true);
    assert_eq!(report["reason"], "ok");
    assert_eq!(report["signatureProfile"], "legacy");
    assert_eq!(report["signatureSpiffeId"], "spiffe://dev.cluster.local/ns/demo/sa/echo-sa");
    assert_eq!(report["memberOfTrustDomain"], true);
    assert_eq!(
        report["unsignedMembers"],
        serde_json::json!(["/capabilities/stateTransitionHistory", "/securitySchemes"])
    );
    assert_eq!(report["signatures"][0]["reason"], "ok");
}

#[test]
fn people_get_lines() {
    let output = Files::new().verify("foreign-signature-first", "spiffe-json", &[]);
    let lines = text(&output.stdout);
    for line in [
        "verified:         yes\n",
        "reason:           ok\n",
        "signature 1:      chain_invalid: ",
        "signature 2:      ok: ",
    ] {
        assert!(lines.contains(line), "{line:?} in {lines}");
    }
}

#[test]
fn refused_cards_exit_1() {
    for (card, reason) in [
        ("tampered-payload", "jws_invalid"),
        ("no-signatures", "no_signature"),
        ("leaf-is-ca", "leaf_invalid"),
    ] {
        let output = Files::new().verify(card, "spiffe-json", &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            text(&output.stdout).starts_with(&format!("verified:         no\nreason:           {reason}\n"))
        );
    }
}

#[test]
fn the_policy_of_time_is_a_flag() {
    let files = Files::new();
    let code = |more: &[&str]| files.verify("expired-4h-default-grace", "spiffe-json", more).status.code();
    assert_eq!(code(&[]), Some(0));
    assert_eq!(code(&["--leaf-expiry-policy", "deny"]), Some(1));
    assert_eq!(code(&["--leaf-expiry-grace", "3h"]), Some(1));
    assert_eq!(code(&["--leaf-expiry-policy", "maybe"]), Some(2));
}

#[test]
fn a_foreign_member_is_verified_but_not_ours() {
    let output = Files::new().verify("federated-domain", "multi-domain", &["-o", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (report["verified"].as_bool(), report["memberOfTrustDomain"].as_bool()),
        (Some(true), Some(false))
    );
}

#[test]
fn bad_inputs_exit_2_and_say_why() {
    let files = Files::new();
    let (card, bundle) = (files.card("es256-legacy"), files.bundle("spiffe-json"));
    let broken = files.write("broken.json", "{\"name\":1}");
    let large = files.write("large.json", &" ".repeat(2 * 1024 * 1024));
    let absent = files.folder.path().join("absent");
    for (card, bundle, message) in [
        (&absent, &bundle, "cannot read"),
        (&broken, &bundle, "/name must be a string"),
        (&large, &bundle, "larger than 1048576 bytes"),
        (&card, &broken, "empty_bundle"),
        (&card, &large, "larger than 1048576 bytes"),
        (&card, &absent, "cannot read"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_card-ctl"));
        command.args(["verify", "--trust-domain", "dev.cluster.local", "--card"]).arg(card);
        let output = run(command.arg("--trust-bundle").arg(bundle));
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(
            output.stdout.is_empty() && text(&output.stderr).contains(message),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn canonical_bytes_are_printed_exactly() {
    let files = Files::new();
    for case in files.vectors["canonicalization"].as_array().expect("cases") {
        let card = files.write("card.json", case["input"].as_str().expect("text"));
        for profile in case["normative"].as_array().expect("profiles") {
            let profile = profile.as_str().expect("text");
            let mut command = Command::new(env!("CARGO_BIN_EXE_card-ctl"));
            let output = run(command.args(["canonicalize", "--profile", profile]).arg(&card));
            assert_eq!(text(&output.stdout), case["expected"][profile]["payload"].as_str().expect("text"));
            assert_eq!(output.status.code(), Some(0));
        }
    }
    let broken = files.write("broken.json", "[");
    let output = run(Command::new(env!("CARGO_BIN_EXE_card-ctl"))
        .args(["canonicalize", "--profile", "jcs"])
        .arg(broken));
    assert_eq!(output.status.code(), Some(2));
}
