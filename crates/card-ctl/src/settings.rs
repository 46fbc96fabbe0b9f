//! Flags of card-ctl beside the common ones (card §4.1).

use std::{path::PathBuf, time::Duration};

use agent_trust::verify::{LeafExpiry, Policy};
use api_types::BindingScope;
use clap::{ArgAction, Args, ValueEnum};
use controller_kit::cli::{Component, Requests, duration, rate_or_zero};

use crate::fetch::{
    DenyList,
    address::{DialMode, EndpointPolicy},
};

/// This component.
pub const COMPONENT: Component = Component {
    name: "card-ctl",
    about: "Fetches, verifies and binds the AgentCards of workloads",
    requests: Requests::COMMON,
};

/// Where the verified label goes (card §11.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LabelMode {
    /// The pod template: changes roll the Pods.
    #[default]
    Template,
    /// Running Pods.
    Pods,
}

/// When a changed trust bundle restarts a workload (card §12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnBundleChange {
    /// When its chain no longer validates.
    #[default]
    Needed,
    /// Every time.
    Always,
    /// Never.
    Never,
}

/// Which workloads are restarted to renew a signature (card §12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Restarts {
    /// Those with a signer as init container.
    #[default]
    SignerOnly,
    /// All.
    Always,
    /// None.
    Never,
}

/// Where cards may come from, beside a verified fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SourceKind {
    /// The workload's signed ConfigMap.
    #[value(name = "configmap")]
    ConfigMap,
    /// HTTP.
    Http,
}

/// The flags.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Verify the signatures of cards
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub require_a2a_signature: bool,

    /// Report bad signatures without any effect on traffic
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub signature_audit_mode: bool,

    /// SPIFFE trust domain of the platform; empty = look for it
    #[arg(long, env = "KAGENTI_SPIRE_TRUST_DOMAIN", default_value = "")]
    pub spire_trust_domain: String,

    /// ConfigMap with the trust bundle; needed with --require-a2a-signature
    #[arg(long, default_value = "")]
    pub spire_trust_bundle_configmap: String,

    /// Its namespace; empty = the own one
    #[arg(long, env = "KAGENTI_SPIRE_NAMESPACE", default_value = "")]
    pub spire_trust_bundle_configmap_namespace: String,

    /// Its key with the bundle
    #[arg(long, default_value = "bundle.spiffe")]
    pub spire_trust_bundle_configmap_key: String,

    /// How often the bundle is read again although no change was seen
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub spire_trust_bundle_refresh_interval: Duration,

    /// Restart signers when a certificate expires within this time; also the pause between two restarts
    #[arg(long, default_value = "30m", value_parser = duration)]
    pub svid_expiry_grace_period: Duration,

    /// Fetch over SPIFFE mTLS where a Service has the port agent-tls
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub enable_verified_fetch: bool,

    /// Socket of the SPIFFE Workload API
    #[arg(long, default_value = "unix:///spiffe-workload-api/spire-agent.sock")]
    pub verified_fetch_spiffe_socket: String,

    /// Never fetch by plain HTTP
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub verified_fetch_required: bool,

    /// Certificate chain as PEM file, instead of the socket
    #[arg(long)]
    pub svid_cert_file: Option<PathBuf>,

    /// Its key as PEM file
    #[arg(long)]
    pub svid_key_file: Option<PathBuf>,

    /// The trust bundle for it as PEM file
    #[arg(long)]
    pub svid_bundle_file: Option<PathBuf>,

    /// Make AgentCards for labelled workloads
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub enable_card_sync: bool,

    /// Fill status.card of AgentRuntimes
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub enable_card_discovery: bool,

    /// How tightly identities are bound unless a card says otherwise: TrustDomain, Namespace or ServiceAccount
    #[arg(long, default_value = "TrustDomain", value_parser = binding_scope)]
    pub identity_binding_scope: BindingScope,

    /// What happens to a signature whose certificate has expired: grace, deny or ignore
    #[arg(long, default_value = "grace")]
    pub x5c_leaf_expiry_policy: LeafExpiry,

    /// How long it stays valid with the policy grace
    #[arg(long, default_value = "24h", value_parser = duration)]
    pub x5c_leaf_expiry_grace: Duration,

    /// Allowed difference of clocks
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub clock_skew: Duration,

    /// How long a verdict counts while nothing can be found out
    #[arg(long, default_value = "24h", value_parser = duration)]
    pub verification_staleness_limit: Duration,

    /// Where the verified label goes
    #[arg(long, value_enum, default_value_t)]
    pub verified_label_mode: LabelMode,

    /// When a changed trust bundle restarts a workload
    #[arg(long, value_enum, default_value_t)]
    pub resign_on_bundle_change: OnBundleChange,

    /// Which workloads are restarted to renew a signature
    #[arg(long, value_enum, default_value_t)]
    pub resign_restarts: Restarts,

    /// How many workloads restart per second for a signature or a label; 0 = no limit
    #[arg(long, default_value_t = 10.0, value_parser = rate_or_zero)]
    pub resign_qps: f64,

    /// Shortest period of a card
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub min_sync_period: Duration,

    /// Longest period of a card
    #[arg(long, default_value = "24h", value_parser = duration)]
    pub max_sync_period: Duration,

    /// Longest fetch, from the first byte to the last
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub fetch_timeout: Duration,

    /// Longest time to connect
    #[arg(long, default_value = "3s", value_parser = duration)]
    pub fetch_connect_timeout: Duration,

    /// Most fetches at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub fetch_concurrency: u16,

    /// Biggest document, in bytes
    #[arg(long, default_value_t = 1_048_576, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub fetch_max_bytes: u32,

    /// Biggest card in a status, in bytes
    #[arg(long, default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(1024..=1_048_576))]
    pub card_status_max_bytes: u32,

    /// Which address of a Service is dialled: clusterip, endpoints or dns
    #[arg(long, default_value_t)]
    pub fetch_dial: DialMode,

    /// Which endpoints may be dialled: any or workload-pods
    #[arg(long, default_value_t)]
    pub fetch_endpoint_policy: EndpointPolicy,

    /// Addresses that are never dialled
    #[arg(long, default_value = DENIED)]
    pub fetch_deny_cidrs: DenyList,

    /// Domain of the cluster's Services
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,

    /// Where cards may come from beside a verified fetch, in order
    #[arg(long, value_enum, value_delimiter = ',', default_value = "configmap,http")]
    pub card_sources: Vec<SourceKind>,
}

/// Unspecified, loopback, link-local and multicast.
const DENIED: &str = "0.0.0.0/8,127.0.0.0/8,169.254.0.0/16,224.0.0.0/4,::/128,::1/128,fe80::/10,ff00::/8";

fn binding_scope(text: &str) -> Result<BindingScope, String> {
    match BindingScope::from(text) {
        BindingScope::Unknown(_) => Err(format!("use one of {}", BindingScope::KNOWN.join(", "))),
        known => Ok(known),
    }
}

impl Settings {
    /// The flags without any argument.
    ///
    /// # Panics
    /// Never: every flag has a default.
    pub fn defaults() -> Self {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            settings: Settings,
        }
        <Cli as clap::Parser>::parse_from(["card-ctl"]).settings
    }

    /// Finds flags that contradict each other; the text names them.
    ///
    /// # Errors
    /// One line for people.
    pub fn check(&self) -> Result<(), String> {
        let files = [&self.svid_cert_file, &self.svid_key_file, &self.svid_bundle_file];
        if files.iter().any(|file| file.is_some()) && files.iter().any(|file| file.is_none()) {
            return Err("--svid-cert-file, --svid-key-file and --svid-bundle-file go together".into());
        }
        if self.verified_fetch_required && !self.enable_verified_fetch {
            return Err("--verified-fetch-required needs --enable-verified-fetch".into());
        }
        if self.require_a2a_signature && self.spire_trust_bundle_configmap.is_empty() {
            return Err("--require-a2a-signature needs --spire-trust-bundle-configmap".into());
        }
        if self.signature_audit_mode && !self.require_a2a_signature {
            return Err("--signature-audit-mode needs --require-a2a-signature".into());
        }
        if self.min_sync_period > self.max_sync_period {
            return Err("--min-sync-period is longer than --max-sync-period".into());
        }
        if self.fetch_connect_timeout > self.fetch_timeout {
            return Err("--fetch-connect-timeout is longer than --fetch-timeout".into());
        }
        let domain = self.spire_trust_domain.to_ascii_lowercase();
        if !domain.is_empty() && !api_types::spiffe_id::is_trust_domain(&domain) {
            return Err(format!(
                "--spire-trust-domain {domain:?} is not a trust domain, for example example.org"
            ));
        }
        Ok(())
    }

    /// The rules of time for signatures.
    pub fn policy(&self) -> Policy {
        Policy {
            leaf_expiry: self.x5c_leaf_expiry_policy,
            grace: self.x5c_leaf_expiry_grace,
            skew: self.clock_skew,
        }
    }

    /// The three SVID files are given.
    pub fn svid_files(&self) -> bool {
        self.svid_cert_file.is_some()
    }

    /// True when a source may be used.
    pub fn uses(&self, source: SourceKind) -> bool {
        self.card_sources.contains(&source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// Card §4.1: defaults of the table, and contradictions named.
    #[test]
    fn defaults_are_sound() {
        let settings = Settings::defaults();
        assert_eq!(settings.check(), Ok(()));
        assert_eq!(settings.fetch_dial, DialMode::ClusterIp);
        assert_eq!(settings.card_sources, [SourceKind::ConfigMap, SourceKind::Http]);
        assert_eq!(settings.max_sync_period, Duration::from_hours(24));
    }

    #[rstest]
    #[case(|s: &mut Settings| s.require_a2a_signature = true, "--spire-trust-bundle-configmap")]
    #[case(|s: &mut Settings| s.signature_audit_mode = true, "--require-a2a-signature")]
    #[case(|s: &mut Settings| s.svid_key_file = Some("k".into()), "--svid-cert-file")]
    #[case(|s: &mut Settings| { s.verified_fetch_required = true; s.enable_verified_fetch = false }, "--enable-verified-fetch")]
    #[case(|s: &mut Settings| s.min_sync_period = Duration::from_hours(25), "--max-sync-period")]
    #[case(|s: &mut Settings| s.spire_trust_domain = "a/b".into(), "--spire-trust-domain")]
    fn contradictions_are_named(#[case] change: fn(&mut Settings), #[case] named: &str) {
        let mut settings = Settings::defaults();
        change(&mut settings);
        let message = settings.check().unwrap_err();
        assert!(message.contains(named), "{message}");
    }
}
