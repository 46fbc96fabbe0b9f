//! Certificates that a server may be signed by: the system's, and a file's beside them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// A PEM file with certificates that are trusted beside the system's, as it was last read.
#[derive(Clone, Debug)]
pub struct CaFile {
    path: PathBuf,
    content: Vec<u8>,
    certificates: Vec<CertificateDer<'static>>,
}

/// Why a CA file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    /// It cannot be read.
    #[error("CA file {path} cannot be read: {reason}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// There is nothing in it.
    #[error("CA file {path} holds no certificate: it must be PEM with at least one CERTIFICATE block")]
    Empty {
        /// The file.
        path: String,
    },
    /// A block in it is no certificate.
    #[error("CA file {path}: certificate {number} is unusable: {reason}")]
    Unusable {
        /// The file.
        path: String,
        /// Which block, from 1.
        number: usize,
        /// Why.
        reason: String,
    },
}

impl CaFile {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Self, CaError> {
        let content = std::fs::read(path)
            .map_err(|error| CaError::Read { path: path.display().to_string(), reason: error.to_string() })?;
        Self::parse(path, content)
    }

    fn parse(path: &Path, content: Vec<u8>) -> Result<Self, CaError> {
        let name = || path.display().to_string();
        let mut certificates = Vec::new();
        let mut probe = RootCertStore::empty();
        for (index, block) in CertificateDer::pem_slice_iter(&content).enumerate() {
            let unusable = |reason: String| CaError::Unusable { path: name(), number: index + 1, reason };
            let certificate = block.map_err(|error| unusable(error.to_string()))?;
            probe.add(certificate.clone()).map_err(|error| unusable(error.to_string()))?;
            certificates.push(certificate);
        }
        if certificates.is_empty() {
            return Err(CaError::Empty { path: name() });
        }
        Ok(Self { path: path.to_owned(), content, certificates })
    }

    /// Reads the file again; `None` when its content is the same.
    pub(crate) fn reload(&self) -> Result<Option<Self>, CaError> {
        let content = std::fs::read(&self.path).map_err(|error| CaError::Read {
            path: self.path.display().to_string(),
            reason: error.to_string(),
        })?;
        if content == self.content {
            return Ok(None);
        }
        Self::parse(&self.path, content).map(Some)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// A TLS configuration that trusts the system's certificates and those of `extra`.
///
/// An image without any system certificates is fine; then only `extra` counts.
pub(crate) fn tls_config(extra: Option<&CaFile>) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::debug!(%error, "some system certificates cannot be read");
    }
    roots.add_parsable_certificates(system.certs);
    roots.add_parsable_certificates(extra.into_iter().flat_map(|file| file.certificates.iter().cloned()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(content: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, content).expect("file");
        (directory, path)
    }

    fn certificate() -> String {
        rcgen::generate_simple_self_signed(vec!["h".to_owned()]).expect("certificate").cert.pem()
    }

    #[test]
    fn unusable_files_are_named() {
        let missing = CaFile::load(Path::new("/nonexistent/ca.pem")).expect_err("missing");
        assert!(missing.to_string().contains("/nonexistent/ca.pem"), "{missing}");
        let (_directory, path) = write("");
        assert!(matches!(CaFile::load(&path), Err(CaError::Empty { .. })));
        let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let (_directory, path) = write(&format!("{}{bad}", certificate()));
        assert!(matches!(CaFile::load(&path), Err(CaError::Unusable { number: 2, .. })));
    }

    #[test]
    fn a_change_is_seen_by_content() {
        let (_directory, path) = write(&certificate());
        let file = CaFile::load(&path).expect("file");
        assert!(file.reload().expect("same").is_none());
        std::fs::write(&path, certificate()).expect("write");
        assert!(file.reload().expect("changed").is_some());
        std::fs::write(&path, "").expect("write");
        assert!(matches!(file.reload(), Err(CaError::Empty { .. })));
    }
}
