//! An SVID in PEM files, in the layout of spiffe-helper (card §4.1, §16.1).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::svid::{Svid, SvidError, trust_domain};

/// How often the files are looked at; spiffe-helper replaces them about twice per lifetime of an SVID.
const POLL: Duration = Duration::from_secs(10);
/// How often files that have not been complete yet are looked at.
const EAGER_POLL: Duration = Duration::from_secs(1);

/// Where the PEM files of an SVID lie.
#[derive(Clone, Debug)]
pub struct SvidFiles {
    cert: PathBuf,
    key: PathBuf,
    bundle: Option<PathBuf>,
    poll: Duration,
}

impl SvidFiles {
    /// The certificate chain (leaf first), its private key, and the roots of its trust domain. Without a
    /// bundle the SVID can sign, but nobody can be checked against it.
    pub fn new(cert: impl Into<PathBuf>, key: impl Into<PathBuf>, bundle: Option<PathBuf>) -> Self {
        Self { cert: cert.into(), key: key.into(), bundle, poll: POLL }
    }

    /// Looks at the files every `poll` instead of every 10 s.
    #[must_use]
    pub fn with_poll(self, poll: Duration) -> Self {
        Self { poll, ..self }
    }

    /// Reads the files once.
    pub async fn load(&self) -> Result<Svid, SvidError> {
        self.parse(&self.read().await?)
    }

    pub(crate) fn next_look(&self, loaded: bool) -> Duration {
        if loaded { self.poll } else { self.poll.min(EAGER_POLL) }
    }

    pub(crate) async fn read(&self) -> Result<Contents, SvidError> {
        Ok(Contents {
            cert: read(&self.cert).await?,
            key: read(&self.key).await?,
            bundle: match &self.bundle {
                Some(path) => Some(read(path).await?),
                None => None,
            },
        })
    }

    pub(crate) fn parse(&self, contents: &Contents) -> Result<Svid, SvidError> {
        let chain = certificates(&self.cert, &contents.cert)?;
        let mut key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|_| SvidError::NoPem { path: self.key.display().to_string(), what: "private key" })?;
        let roots = match (&self.bundle, &contents.bundle) {
            (Some(path), Some(text)) => certificates(path, text)?,
            _ => Vec::new(),
        };
        let own =
            Svid::new(chain.clone(), &key, BTreeMap::new()).map(|svid| trust_domain(svid.id()).to_owned());
        let svid = own.and_then(|own| Svid::new(chain, &key, BTreeMap::from([(own, roots)])));
        key.zeroize();
        svid
    }
}

/// What the files held at one moment.
pub(crate) struct Contents {
    cert: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
    bundle: Option<Zeroizing<Vec<u8>>>,
}

impl Contents {
    /// Tells contents apart without keeping them.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [Some(&self.cert), Some(&self.key), self.bundle.as_ref()] {
            let part = part.map_or(&[][..], |part| part.as_slice());
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

async fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SvidError> {
    tokio::fs::read(path)
        .await
        .map(Zeroizing::new)
        .map_err(|error| SvidError::Read { path: path.display().to_string(), reason: error.to_string() })
}

fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, SvidError> {
    let none = || SvidError::NoPem { path: path.display().to_string(), what: "certificate" };
    let found: Vec<_> = CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(|_| none())?;
    if found.is_empty() { Err(none()) } else { Ok(found) }
}
