//! The manifest of the plugin (packaging §16), as far as a file can be wrong.

use std::collections::BTreeSet;

use serde_json::Value;

const MANIFEST: &str = include_str!("../../../../deploy/krew/kagenti.yaml");
/// What stands in the repository; a release has digests.
const UNRELEASED: &str = "set by the release";

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn manifest_says_what_krew_asks_for() {
    let manifest: Value = serde_saphyr::from_str(MANIFEST).expect("YAML");
    assert_eq!(text(&manifest, "/apiVersion"), "krew.googlecontainertools.github.com/v1alpha2");
    assert_eq!(text(&manifest, "/kind"), "Plugin");
    assert_eq!(text(&manifest, "/metadata/name"), "kagenti");
    assert_eq!(text(&manifest, "/spec/version"), format!("v{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(text(&manifest, "/spec/homepage"), env!("CARGO_PKG_REPOSITORY"));
    let short = text(&manifest, "/spec/shortDescription");
    assert!(!short.is_empty() && short.len() <= 50 && !short.ends_with('.'), "{short}");
    for field in ["/spec/description", "/spec/caveats"] {
        assert!(text(&manifest, field).contains("kubectl kagenti values convert"), "{field}");
        assert!(text(&manifest, field).lines().all(|line| line.len() <= 80), "{field}");
    }
}

#[test]
fn every_platform_has_its_archive() {
    let manifest: Value = serde_saphyr::from_str(MANIFEST).expect("YAML");
    let version = text(&manifest, "/spec/version").to_owned();
    let platforms = manifest.pointer("/spec/platforms").and_then(Value::as_array).expect("platforms");
    let mut seen = BTreeSet::new();
    let mut released = BTreeSet::new();
    for platform in platforms {
        let (os, arch) =
            (text(platform, "/selector/matchLabels/os"), text(platform, "/selector/matchLabels/arch"));
        assert!(seen.insert((os.to_owned(), arch.to_owned())), "{os} {arch} twice");
        let (bin, archive) =
            if os == "windows" { ("kubectl-kagenti.exe", "zip") } else { ("kubectl-kagenti", "tar.gz") };
        let base = format!("{}/releases/download/{version}", env!("CARGO_PKG_REPOSITORY"));
        let uri = format!("{base}/kubectl-kagenti_{version}_{os}_{arch}.{archive}");
        assert_eq!(text(platform, "/uri"), uri);
        assert_eq!(text(platform, "/bin"), bin);
        assert_eq!(text(platform, "/files/0/from"), bin);
        let sha256 = text(platform, "/sha256");
        let digest = sha256.len() == 64 && sha256.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
        assert!(digest || sha256 == UNRELEASED, "{sha256}");
        assert!(released.insert(sha256.to_owned()) || sha256 == UNRELEASED, "{sha256} twice");
    }
    let pair = |os: &str, arch: &str| (os.to_owned(), arch.to_owned());
    let expected = [
        pair("darwin", "amd64"),
        pair("darwin", "arm64"),
        pair("linux", "amd64"),
        pair("linux", "arm64"),
        pair("windows", "amd64"),
    ];
    assert_eq!(seen, BTreeSet::from(expected));
    // All of a release, or none of one.
    assert!(!released.contains(UNRELEASED) || released.len() == 1, "{released:?}");
}
