//! `cargo demo --signed`: what a signature changes.
//!
//! A throw-away certificate authority stands for SPIRE. The quick start's card is first unsigned, then signed by the
//! real agentcard-signer, then tampered with; NetworkPolicies follow each verdict.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use local_cluster::{Cluster, ComponentOptions, components};
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use serde_json::{Value, json};

/// Trust domain of the demo.
pub(crate) const TRUST_DOMAIN: &str = "demo.kagenti.test";
/// Identity that signs: the one SPIRE would give the workload's Pods.
pub(crate) const SPIFFE_ID: &str = "spiffe://demo.kagenti.test/ns/default/sa/weather-agent";
const BUNDLE: &str = "spire-bundle";
const NAMESPACE: &str = "kagenti-system";

/// Files of the throw-away authority and what they sign.
pub(crate) struct Authority {
    dir: std::path::PathBuf,
    bundle: String,
}

impl Authority {
    /// Makes the authority and one SVID, valid for an hour, in `dir`, and puts the card that is to be signed beside it.
    pub(crate) fn new(dir: &Path, card: &Value) -> Result<Self> {
        let dir = dir.join("demo-signing");
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let uri = |text: &str| -> Result<SanType> { Ok(SanType::URI(Ia5String::try_from(text)?)) };
        let mut params = lifetime()?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{TRUST_DOMAIN}"))?];
        let key = KeyPair::generate()?;
        let root = params.self_signed(&key)?;
        let issuer = Issuer::new(params, key);
        let mut params = lifetime()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.subject_alt_names = vec![uri(SPIFFE_ID)?];
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &issuer)?;
        for (name, text) in [
            ("svid.pem", leaf.pem()),
            ("svid_key.pem", key.serialize_pem()),
            ("agent.json", card.to_string()),
        ] {
            std::fs::write(dir.join(name), text).with_context(|| format!("writing {name}"))?;
        }
        Ok(Self { dir, bundle: root.pem() })
    }

    /// The ConfigMap that SPIRE would keep, in the namespace of the suite.
    pub(crate) fn namespace_and_bundle(&self) -> String {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        let bundle = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": BUNDLE, "namespace": NAMESPACE},
            "data": {"bundle.spiffe": self.bundle},
        });
        format!("{namespace}\n---\n{bundle}\n")
    }

    /// Runs agentcard-signer as its init container would run; the signed card.
    pub(crate) async fn sign(&self, cluster: &Cluster) -> Result<Value> {
        let profile = cluster.options().profile;
        let programs = tokio::task::spawn_blocking(move || components::build(&["agentcard-signer"], profile))
            .await
            .context("building agentcard-signer")??;
        let signed = self.dir.join("agent-card.json");
        let output = tokio::process::Command::new(programs.path("agentcard-signer")?)
            .env_clear()
            .env("SVID_CERT_PATH", self.dir.join("svid.pem"))
            .env("SVID_KEY_PATH", self.dir.join("svid_key.pem"))
            .env("UNSIGNED_CARD_PATH", self.dir.join("agent.json"))
            .env("AGENT_CARD_PATH", &signed)
            .output()
            .await
            .context("running agentcard-signer")?;
        let log = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "agentcard-signer failed ({}):\n{}", output.status, log.trim());
        let text = std::fs::read(&signed).with_context(|| format!("reading {}", signed.display()))?;
        serde_json::from_slice(&text).context("the signed card")
    }
}

/// The ConfigMap from which card-ctl takes a signed card.
pub(crate) fn signed_config_map(card: &Value) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "weather-agent-card-signed",
            "namespace": "default",
            "labels": {"kagenti.io/card-signed": "true"},
        },
        "data": {"agent-card.json": card.to_string()},
    })
    .to_string()
}

/// The same card with another promise, under the old signatures.
pub(crate) fn tampered(card: &Value) -> Value {
    let mut members = card.as_object().cloned().unwrap_or_default();
    members.insert("description".to_owned(), json!("Wires money to whoever asks."));
    Value::Object(members)
}

/// How a component runs when cards have to be signed.
pub(crate) fn options(name: &str) -> ComponentOptions {
    let options = ComponentOptions::new(name);
    match name {
        "card-ctl" => options.args([
            "--require-a2a-signature".to_owned(),
            format!("--spire-trust-domain={TRUST_DOMAIN}"),
            format!("--spire-trust-bundle-configmap={BUNDLE}"),
            format!("--spire-trust-bundle-configmap-namespace={NAMESPACE}"),
        ]),
        "netpol-ctl" => options.args(["--enforce-network-policies"]),
        _ => options,
    }
}

fn lifetime() -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(60)).into();
    params.not_after = (now + Duration::from_secs(3600)).into();
    Ok(params)
}
