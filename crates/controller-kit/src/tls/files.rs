//! A certificate and its key in a mounted directory, polled by content.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{KeyPair, ServingCert, TlsError};

/// How often files are looked at (packaging §8).
pub const DEFAULT_POLL: Duration = Duration::from_secs(10);

/// The two files of a serving certificate.
#[derive(Clone, Debug)]
pub struct CertFiles {
    cert: PathBuf,
    key: PathBuf,
}

impl CertFiles {
    /// Files `cert` and `key` in `directory`.
    pub fn new(directory: &Path, cert: &str, key: &str) -> Self {
        Self { cert: directory.join(cert), key: directory.join(key) }
    }

    /// Reads and checks both files.
    pub async fn load(&self, now: Timestamp) -> Result<KeyPair, TlsError> {
        let (chain, key) = self.read().await?;
        KeyPair::from_pem(&chain, &key, now)
    }

    /// Reads the files every `interval`, for ever, and serves each new pair that passes the checks. On
    /// an error the old pair stays. `report` hears of every new pair and, once per distinct content, of
    /// every error; this function logs both.
    pub async fn watch(
        self,
        serving: ServingCert,
        interval: Duration,
        mut report: impl FnMut(Result<&KeyPair, &TlsError>) + Send,
    ) {
        let mut state = State::default();
        loop {
            let read = self.read().await;
            if let Some(outcome) = state.step(read, Timestamp::now()) {
                report(outcome.as_ref());
                match outcome {
                    Ok(pair) => {
                        tracing::info!(file = %self.cert.display(), not_after = %pair.not_after, "serving certificate loaded");
                        serving.set(pair);
                    }
                    Err(error) => {
                        tracing::error!(file = %self.cert.display(), %error, "certificate not loaded, the old one stays");
                    }
                }
            }
            tokio::time::sleep(interval).await;
        }
    }

    async fn read(&self) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
        let file = async |path: &Path| {
            tokio::fs::read(path).await.map_err(|error| TlsError::Read {
                path: path.display().to_string(),
                reason: error.to_string(),
            })
        };
        Ok((file(&self.cert).await?, file(&self.key).await?))
    }
}

/// What was seen last, so that equal content and equal errors are handled once.
#[derive(Default)]
struct State {
    loaded: Option<[u8; 32]>,
    complained: Option<([u8; 32], TlsError)>,
}

impl State {
    fn step(
        &mut self,
        read: Result<(Vec<u8>, Vec<u8>), TlsError>,
        now: Timestamp,
    ) -> Option<Result<KeyPair, TlsError>> {
        let (digest, result) = match read {
            Ok((chain, key)) => {
                let digest: [u8; 32] = Sha256::new()
                    .chain_update((chain.len() as u64).to_be_bytes())
                    .chain_update(&chain)
                    .chain_update(&key)
                    .finalize()
                    .into();
                if self.loaded == Some(digest) {
                    return None;
                }
                (digest, KeyPair::from_pem(&chain, &key, now))
            }
            Err(error) => ([0; 32], Err(error)),
        };
        match result {
            Ok(pair) => {
                self.loaded = Some(digest);
                self.complained = None;
                Some(Ok(pair))
            }
            Err(error) => {
                // The text of "not valid now" holds the time; the content decides what is the same.
                let same = self.complained.as_ref().is_some_and(|(seen, before)| {
                    *seen == digest && std::mem::discriminant(before) == std::mem::discriminant(&error)
                });
                self.complained = Some((digest, error.clone()));
                (!same).then_some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::self_signed;
    use jiff::SignedDuration;

    fn pem() -> (Vec<u8>, Vec<u8>) {
        let (cert, key) = self_signed(vec!["a".to_owned()], SignedDuration::from_hours(1)).unwrap();
        (cert.into_bytes(), key.into_bytes())
    }

    /// Packaging §8: keep the old pair on any error, report once per distinct content.
    #[test]
    fn errors_are_reported_once_per_content_and_a_good_pair_once() {
        let now = Timestamp::now();
        let mut state = State::default();
        let (cert, key) = pem();
        let (other_cert, _) = pem();
        assert!(matches!(state.step(Ok((cert.clone(), key.clone())), now), Some(Ok(_))));
        assert!(state.step(Ok((cert.clone(), key.clone())), now).is_none());
        // Half-way through a change of the volume.
        let mixed = || Ok((other_cert.clone(), key.clone()));
        assert!(matches!(state.step(mixed(), now), Some(Err(TlsError::Mismatch))));
        assert!(state.step(mixed(), now).is_none());
        let missing = || Err(TlsError::Read { path: "x".to_owned(), reason: "gone".to_owned() });
        assert!(matches!(state.step(missing(), now), Some(Err(TlsError::Read { .. }))));
        assert!(state.step(missing(), now).is_none());
        assert!(state.step(Ok((cert, key)), now).is_none(), "what is served already needs no reload");
    }

    /// A Secret volume changes by swapping a symlink; the content decides.
    #[tokio::test]
    async fn a_swapped_symlink_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let (cert, key) = pem();
            let version = directory.path().join(name);
            std::fs::create_dir(&version).unwrap();
            std::fs::write(version.join("tls.crt"), cert).unwrap();
            std::fs::write(version.join("tls.key"), key).unwrap();
            let next = directory.path().join("..next");
            std::os::unix::fs::symlink(&version, &next).unwrap();
            std::fs::rename(&next, directory.path().join("..data")).unwrap();
        };
        write("v1");
        let files = CertFiles::new(&directory.path().join("..data"), "tls.crt", "tls.key");
        let serving = ServingCert::empty();
        let (sender, mut loads) = tokio::sync::mpsc::channel(4);
        let task = tokio::spawn(files.watch(serving.clone(), Duration::from_millis(20), move |outcome| {
            sender.try_send(outcome.is_ok()).unwrap();
        }));
        assert_eq!(loads.recv().await, Some(true));
        let first = serving.current().unwrap().chain().to_vec();
        write("v2");
        assert_eq!(loads.recv().await, Some(true));
        // The report comes before the swap; wait for it.
        while serving.current().unwrap().chain() == first {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        task.abort();
    }
}
