//! PEM files that a helper writes beside us.

#![allow(clippy::expect_used, reason = "test code")]

use std::path::Path;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, SanType};
use spiffe_svid::{SvidError, SvidFiles, SvidSource};
use tokio_util::sync::CancellationToken;

const POLL: Duration = Duration::from_millis(50);

struct Pair {
    cert: String,
    key: String,
}

fn pair(id: &str) -> Pair {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ASCII"))];
    Pair { cert: params.self_signed(&key).expect("a certificate").pem(), key: key.serialize_pem() }
}

fn files(directory: &Path) -> SvidFiles {
    let file = |name: &str| directory.join(name);
    SvidFiles::new(file("svid.pem"), file("svid_key.pem"), Some(file("svid_bundle.pem"))).with_poll(POLL)
}

fn write(directory: &Path, pair: &Pair) {
    std::fs::write(directory.join("svid.pem"), &pair.cert).expect("written");
    std::fs::write(directory.join("svid_key.pem"), &pair.key).expect("written");
    std::fs::write(directory.join("svid_bundle.pem"), &pair.cert).expect("written");
}

fn started(directory: &Path) -> (SvidSource, CancellationToken) {
    let source = SvidSource::files(files(directory));
    let stop = CancellationToken::new();
    let (running, stopped) = (source.clone(), stop.clone());
    tokio::spawn(async move { running.run(stopped).await });
    (source, stop)
}

async fn until_id(source: &SvidSource, wanted: &str) {
    let mut changed = source.changed();
    let arrived = changed.wait_for(|svid| svid.as_ref().is_some_and(|svid| svid.id() == wanted));
    tokio::time::timeout(Duration::from_secs(5), arrived).await.expect("in time").expect("open");
}

#[tokio::test]
async fn files_that_appear_late_and_change() {
    let directory = tempfile::tempdir().expect("a directory");
    let (source, _stop) = started(directory.path());
    tokio::time::sleep(POLL * 2).await;
    assert!(source.current().is_none());
    write(directory.path(), &pair("spiffe://td/a"));
    until_id(&source, "spiffe://td/a").await;
    assert_eq!(source.current().expect("an SVID").roots("td").len(), 1);
    write(directory.path(), &pair("spiffe://td/b"));
    until_id(&source, "spiffe://td/b").await;
}

#[tokio::test]
async fn a_half_written_rotation_leaves_the_old_pair_in_use() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), &pair("spiffe://td/a"));
    let (source, _stop) = started(directory.path());
    until_id(&source, "spiffe://td/a").await;
    let next = pair("spiffe://td/b");
    std::fs::write(directory.path().join("svid.pem"), &next.cert).expect("written");
    tokio::time::sleep(POLL * 4).await;
    assert_eq!(source.current().expect("the old one").id(), "spiffe://td/a", "the key is not here yet");
    std::fs::write(directory.path().join("svid_key.pem"), &next.key).expect("written");
    until_id(&source, "spiffe://td/b").await;
}

#[tokio::test]
async fn unchanged_files_are_no_news() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), &pair("spiffe://td/a"));
    let (source, _stop) = started(directory.path());
    until_id(&source, "spiffe://td/a").await;
    let mut changed = source.changed();
    changed.mark_unchanged();
    tokio::time::sleep(POLL * 4).await;
    assert!(!changed.has_changed().expect("open"));
}

#[tokio::test]
async fn errors_name_the_file_and_the_trouble() {
    let directory = tempfile::tempdir().expect("a directory");
    let error = files(directory.path()).load().await.expect_err("missing").to_string();
    assert!(error.contains("svid.pem"), "{error}");

    write(directory.path(), &pair("spiffe://td/a"));
    std::fs::write(directory.path().join("svid_key.pem"), "SECRET, but no PEM").expect("written");
    let error = files(directory.path()).load().await.expect_err("no key").to_string();
    assert!(error.contains("svid_key.pem") && error.contains("private key"), "{error}");
    assert!(!error.contains("SECRET"), "{error}");

    write(directory.path(), &pair("spiffe://td/a"));
    std::fs::write(directory.path().join("svid_key.pem"), pair("spiffe://td/b").key).expect("written");
    assert_eq!(files(directory.path()).load().await.expect_err("mixed"), SvidError::KeyMismatch);
}

#[tokio::test]
async fn a_signer_needs_no_bundle() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), &pair("spiffe://td/a"));
    let files =
        SvidFiles::new(directory.path().join("svid.pem"), directory.path().join("svid_key.pem"), None);
    assert!(files.load().await.expect("an SVID").roots("td").is_empty());
}
