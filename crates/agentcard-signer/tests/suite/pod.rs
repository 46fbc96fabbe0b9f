//! A Pod for the signer: an SVID in files, a card, an output, and an API server.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use agent_trust::verify::{Policy, verify};
use agent_trust::{Card, TrustBundle, TrustDomain};
use agentcard_signer::Settings;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) mod api;

pub(crate) const DOMAIN: &str = "example.org";
pub(crate) const ID: &str = "spiffe://example.org/ns/team1/sa/weather";
/// Unknown members, an order that is not alphabetical, an empty one, a number as people write it.
pub(crate) const CARD: &str = r#"{"version":"1.0","x-vendor":{"z":1,"a":[]},"name":"weather","url":"http://a/?q=1&b=<2>",
 "capabilities":{"streaming":true},"price":1.50,"description":"SECRET-CARD-TEXT","skills":[]}"#;

pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA"))
    }

    /// Certificate and key in PEM; valid from an hour ago for so many seconds from now on.
    pub(crate) fn issue(&self, id: &str, lifetime: u64) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ASCII"))];
        params.not_before = (SystemTime::now() - Duration::from_secs(3600)).into();
        params.not_after = (SystemTime::now() + Duration::from_secs(lifetime)).into();
        let leaf = params.signed_by(&key, &self.0).expect("a leaf");
        (leaf.pem(), key.serialize_pem())
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        let domain = TrustDomain::configured(DOMAIN).expect("a domain");
        TrustBundle::of_domain(&domain, [self.0.der().as_ref()]).expect("a bundle")
    }
}

/// Files as a Pod mounts them.
pub(crate) struct Pod {
    pub(crate) directory: TempDir,
    pub(crate) ca: Ca,
}

impl Pod {
    pub(crate) fn new(card: &str) -> Self {
        let pod = Self::without_svid(card);
        pod.rotate(ID);
        pod
    }

    pub(crate) fn without_svid(card: &str) -> Self {
        let pod = Self { directory: tempfile::tempdir().expect("a directory"), ca: Ca::new() };
        pod.write_card(card);
        pod
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write_card(&self, card: &str) {
        std::fs::write(self.path("agent.json"), card).expect("written");
    }

    pub(crate) fn rotate(&self, id: &str) {
        let (cert, key) = self.ca.issue(id, 3600);
        std::fs::write(self.path("svid_key.pem"), key).expect("written");
        std::fs::write(self.path("svid.pem"), cert).expect("written");
    }

    /// The environment of the container.
    pub(crate) fn variables(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let path = |name: &str| self.path(name).display().to_string();
        let mut variables = vec![
            ("SVID_CERT_PATH".to_owned(), path("svid.pem")),
            ("SVID_KEY_PATH".to_owned(), path("svid_key.pem")),
            ("UNSIGNED_CARD_PATH".to_owned(), path("agent.json")),
            ("AGENT_CARD_PATH".to_owned(), path("out/.well-known/agent-card.json")),
            ("SIGN_TIMEOUT".to_owned(), "10s".to_owned()),
        ];
        for (name, value) in more {
            variables.retain(|(key, _)| key != name);
            variables.push(((*name).to_owned(), (*value).to_owned()));
        }
        variables
    }

    pub(crate) fn settings(&self, more: &[(&str, &str)]) -> Settings {
        let variables = self.variables(more);
        Settings::from_variables(|name| {
            variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
        })
        .expect("settings")
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.path("out/.well-known/agent-card.json")
    }

    pub(crate) fn signed(&self) -> String {
        std::fs::read_to_string(self.output()).expect("a signed card")
    }

    /// What is in the output directory.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path("out/.well-known")) else { return Vec::new() };
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }
}

/// The SPIFFE IDs that the card's signatures prove, one by one; `None` where one proves nothing.
pub(crate) fn signers(document: &str, bundle: &TrustBundle) -> Vec<Option<String>> {
    let value: Value = serde_json::from_str(document).expect("JSON");
    let signatures = value["signatures"].as_array().cloned().unwrap_or_default();
    let alone = |signature: Value| {
        let mut one = value.clone();
        one["signatures"] = Value::Array(vec![signature]);
        let card = Card::read(one.to_string().as_bytes()).expect("a card");
        let verdict = verify(&card, bundle, &Policy::default(), jiff::Timestamp::now());
        verdict.verified.then(|| verdict.spiffe_id.expect("an ID").to_string())
    };
    signatures.into_iter().map(alone).collect()
}
