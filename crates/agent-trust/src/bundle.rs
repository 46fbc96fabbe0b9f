//! Trust bundles: the certificate authorities whose word counts, by trust domain (card §4.3, §8.6).

mod pem;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::card::hex;
use crate::certificate::Certificate;
use crate::json::{self, JsonError, Value};
use crate::spiffe::TrustDomain;

/// A trust bundle that cannot be used (card §8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// There is no certificate in it.
    #[error("the trust bundle holds no certificate")]
    Empty,
    /// It is neither PEM nor strict JSON.
    #[error("the trust bundle is neither PEM nor valid JSON: {0}")]
    Json(#[from] JsonError),
    /// It is JSON of another shape.
    #[error(
        "the trust bundle is JSON, but neither {{\"keys\": [...]}} nor a map of trust domains to such documents"
    )]
    Shape,
    /// A certificate is not standard base64.
    #[error("x509-svid entry {entry} of the trust bundle is not standard base64")]
    Base64 {
        /// Number of the entry in its `keys`, from 0.
        entry: usize,
    },
    /// A certificate is not well formed.
    #[error("x509-svid entry {entry} of the trust bundle does not hold exactly one certificate")]
    Certificate {
        /// Number of the entry in its `keys`, from 0.
        entry: usize,
    },
}

impl BundleError {
    /// The label of `kagenti_x5c_trust_bundle_load_errors_total` (card §8.6).
    pub fn label(self) -> &'static str {
        match self {
            Self::Empty => "empty_bundle",
            Self::Json(_) | Self::Shape => "invalid_json",
            Self::Base64 { .. } => "invalid_base64",
            Self::Certificate { .. } => "invalid_cert",
        }
    }
}

/// A certificate authority of a bundle.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Root {
    pub(crate) certificate: Certificate,
    /// The trust domain it speaks for; `None` speaks for nobody.
    pub(crate) domain: Option<TrustDomain>,
}

/// Where the trust domains of a bundle come from.
#[derive(Clone, Debug, PartialEq)]
enum Shape {
    /// Certificates only: PEM or one SPIFFE document.
    Plain,
    /// A map of trust domains.
    Map,
}

/// The certificate authorities whose word counts (card §8.6).
#[derive(Clone, Debug, PartialEq)]
pub struct TrustBundle {
    roots: Vec<Root>,
    skipped: usize,
    shape: Shape,
}

impl TrustBundle {
    /// Reads the value of a trust-bundle ConfigMap: PEM, a SPIFFE document, or a map of trust domain to such documents.
    ///
    /// The domain of an authority is its key in the map, else that of its own `spiffe://` URI name, else
    /// `operator_domain`.
    pub fn parse(text: &str, operator_domain: Option<&TrustDomain>) -> Result<Self, BundleError> {
        let mut bundle = Self { roots: Vec::new(), skipped: 0, shape: Shape::Plain };
        if text.contains(pem::BEGIN) {
            bundle.read_pem(text, operator_domain);
        } else if !text.trim().is_empty() {
            bundle.read_json(text, operator_domain)?;
        }
        if bundle.roots.is_empty() { Err(BundleError::Empty) } else { Ok(bundle) }
    }

    /// A bundle of one trust domain from DER certificates, as the Workload API serves it (card §7). Certificates that
    /// cannot be read are an error.
    pub fn of_domain<'a>(
        domain: &TrustDomain,
        certificates: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, BundleError> {
        let mut bundle = Self { roots: Vec::new(), skipped: 0, shape: Shape::Map };
        for (entry, der) in certificates.into_iter().enumerate() {
            let certificate = Certificate::read(der).map_err(|_| BundleError::Certificate { entry })?;
            bundle.add(certificate, Some(domain.clone()));
        }
        if bundle.roots.is_empty() { Err(BundleError::Empty) } else { Ok(bundle) }
    }

    fn read_pem(&mut self, text: &str, operator_domain: Option<&TrustDomain>) {
        for block in pem::certificates(text) {
            match block.and_then(|der| Certificate::read(&der).ok()) {
                Some(certificate) => {
                    let domain = domain_of(&certificate, operator_domain);
                    self.add(certificate, domain);
                }
                None => self.skipped += 1,
            }
        }
    }

    fn read_json(&mut self, text: &str, operator_domain: Option<&TrustDomain>) -> Result<(), BundleError> {
        let document = json::parse(text.as_bytes())?;
        let members = document.members().ok_or(BundleError::Shape)?;
        if let Some(keys) = document.get("keys").and_then(Value::elements) {
            return self.read_keys(keys, |certificate| domain_of(certificate, operator_domain));
        }
        self.shape = Shape::Map;
        for (name, value) in members {
            let keys = value.get("keys").and_then(Value::elements);
            if let (Ok(domain), Some(keys)) = (TrustDomain::configured(name), keys) {
                self.read_keys(keys, |_| Some(domain.clone()))?;
            }
        }
        Ok(())
    }

    fn read_keys(
        &mut self,
        keys: &[Value],
        domain: impl Fn(&Certificate) -> Option<TrustDomain>,
    ) -> Result<(), BundleError> {
        for (entry, key) in keys.iter().enumerate() {
            key.members().ok_or(BundleError::Shape)?;
            if key.get("use").and_then(Value::as_str) != Some("x509-svid") {
                continue;
            }
            let [Value::String(text)] = key.get("x5c").and_then(Value::elements).unwrap_or_default() else {
                return Err(BundleError::Certificate { entry });
            };
            let der = STANDARD.decode(text).map_err(|_| BundleError::Base64 { entry })?;
            let certificate = Certificate::read(&der).map_err(|_| BundleError::Certificate { entry })?;
            let domain = domain(&certificate);
            self.add(certificate, domain);
        }
        Ok(())
    }

    fn add(&mut self, certificate: Certificate, domain: Option<TrustDomain>) {
        let root = Root { certificate, domain };
        if !self.roots.contains(&root) {
            self.roots.push(root);
        }
    }

    /// `v2:` and SHA-256 hex of the sorted SHA-256 hex of all distinct certificates, joined by newlines (card §8.6).
    /// Order, whitespace and sequence numbers do not change it.
    pub fn fingerprint(&self) -> String {
        let mut all: Vec<String> = self.roots.iter().map(|root| root.certificate.fingerprint()).collect();
        all.sort_unstable();
        all.dedup();
        format!("v2:{}", hex(&Sha256::digest(all.join("\n"))))
    }

    /// The trust domain this bundle itself tells (card §4.3): the one key of a map, or the domain on which all
    /// authorities that name one agree. `None`: none, or several.
    pub fn trust_domain(&self) -> Option<TrustDomain> {
        let mut domains: Vec<TrustDomain> = match self.shape {
            Shape::Map => self.roots.iter().filter_map(|root| root.domain.clone()).collect(),
            Shape::Plain => {
                self.roots.iter().filter_map(|root| root.certificate.stated_trust_domain()).collect()
            }
        };
        domains.sort_unstable();
        domains.dedup();
        if domains.len() == 1 { domains.pop() } else { None }
    }

    /// The trust domains its authorities speak for, sorted.
    pub fn trust_domains(&self) -> Vec<TrustDomain> {
        let mut domains: Vec<TrustDomain> =
            self.roots.iter().filter_map(|root| root.domain.clone()).collect();
        domains.sort_unstable();
        domains.dedup();
        domains
    }

    /// The DER of every authority, with its trust domain.
    pub fn roots(&self) -> impl Iterator<Item = (&[u8], Option<&TrustDomain>)> {
        self.roots.iter().map(|root| (root.certificate.der.as_slice(), root.domain.as_ref()))
    }

    /// PEM blocks that were skipped because they could not be read.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    #[cfg(feature = "verify")]
    pub(crate) fn authorities(&self) -> &[Root] {
        &self.roots
    }
}

fn domain_of(certificate: &Certificate, operator_domain: Option<&TrustDomain>) -> Option<TrustDomain> {
    if certificate.names_a_trust_domain() {
        certificate.stated_trust_domain()
    } else {
        operator_domain.cloned()
    }
}
