//! Keys and certificates of one cluster, made at its start and gone with it.

use anyhow::Result;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// A certificate (or public key) and its private key, PEM.
#[derive(Clone, Debug)]
pub(crate) struct KeyPairPem {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The certificate authority of a cluster.
pub(crate) struct Authority {
    certificate_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new self-signed authority.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = named(name, None, Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate: Certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority's certificate, PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's key, PEM.
    pub(crate) fn key(&self) -> String {
        self.key_pem.clone()
    }

    /// A serving certificate for names and addresses.
    pub(crate) fn server(&self, name: &str, hosts: &[&str]) -> Result<KeyPairPem> {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        self.sign(named(name, None, hosts)?, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client certificate; Kubernetes reads user and group from it.
    pub(crate) fn client(&self, user: &str, group: &str) -> Result<KeyPairPem> {
        self.sign(named(user, Some(group), Vec::new())?, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, purpose: ExtendedKeyUsagePurpose) -> Result<KeyPairPem> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(KeyPairPem { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// A key for ServiceAccount tokens; `certificate` holds the public key.
pub(crate) fn signing_key() -> Result<KeyPairPem> {
    let key = KeyPair::generate()?;
    Ok(KeyPairPem { certificate: key.public_key_pem(), key: key.serialize_pem() })
}

fn named(name: &str, group: Option<&str>, hosts: Vec<String>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    let year = i32::from(jiff::Zoned::now().year());
    params.not_before = date_time_ymd(year - 1, 1, 1);
    params.not_after = date_time_ymd(year + 5, 1, 1);
    Ok(params)
}
