//! Flags of runtime-ctl beside the common ones (runtime §19.1).

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};
use controller_kit::cli::{Component, Requests, rate_or_zero};

/// This component.
pub const COMPONENT: Component = Component {
    name: "runtime-ctl",
    about: "Enrols the workload named by an AgentRuntime",
    // 1,000 enrolments at once are 3,000 requests until they are Ready. The common limit of 100 per second would make
    // that 28 s, close to the 30 s we promise; a higher one makes a small API server answer everyone later, admission
    // first (measured: docs/performance.md). No large burst, for the same reason.
    requests: Requests { qps: 150, burst: 50 },
};

/// When TLS-bridge certificates are requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TlsBridgeCa {
    /// When cert-manager is installed.
    #[default]
    Auto,
    /// Always; its absence is reported as a failure.
    True,
    /// Never.
    False,
}

/// Which issuer signs TLS-bridge CAs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerName {
    /// `Issuer` or `ClusterIssuer`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

impl std::str::FromStr for IssuerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once('/') {
            None => ("Issuer", text),
            Some(("Issuer", name)) => ("Issuer", name),
            Some(("ClusterIssuer", name)) => ("ClusterIssuer", name),
            Some((other, _)) => {
                return Err(format!("unknown kind {other:?}: write Issuer/<name> or ClusterIssuer/<name>"));
            }
        };
        if name.is_empty() || name.contains('/') {
            return Err("write <name>, Issuer/<name> or ClusterIssuer/<name>".into());
        }
        Ok(Self { kind, name: name.to_owned() })
    }
}

/// The flags.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Feature gates for when ConfigMap kagenti-feature-gates cannot be read
    #[arg(long, default_value = "/etc/kagenti/feature-gates/feature-gates.yaml")]
    pub feature_gates_path: PathBuf,

    /// Label agent namespaces for the Istio ambient mesh
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub enable_istio_mesh: bool,

    /// Let workloads that were labelled by hand follow configuration changes
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub propagate_defaults: bool,

    /// Request TLS-bridge CAs from cert-manager
    #[arg(long, value_enum, default_value_t, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub enable_tls_bridge_ca: TlsBridgeCa,

    /// Issuer of TLS-bridge CAs: <name>, Issuer/<name> or ClusterIssuer/<name>; default: a self-signed one per namespace
    #[arg(long)]
    pub tls_bridge_issuer: Option<IssuerName>,

    /// Restart Pods also when identity, authBridgeMode, tlsBridgeMode, egressEnforcement or inboundInterception change
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub rollout_on_spec_change: bool,

    /// How many enrolled workloads restart per second when configuration changes; 0 = no limit
    #[arg(long, default_value_t = 20.0, value_parser = rate_or_zero)]
    pub rollout_qps: f64,

    /// How many of them may restart at once before --rollout-qps holds
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub rollout_burst: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            feature_gates_path: "/etc/kagenti/feature-gates/feature-gates.yaml".into(),
            enable_istio_mesh: true,
            propagate_defaults: true,
            enable_tls_bridge_ca: TlsBridgeCa::Auto,
            tls_bridge_issuer: None,
            rollout_on_spec_change: false,
            rollout_qps: 20.0,
            rollout_burst: 100,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("ca", Some(("Issuer", "ca")))]
    #[case("Issuer/ca", Some(("Issuer", "ca")))]
    #[case("ClusterIssuer/ca", Some(("ClusterIssuer", "ca")))]
    #[case("Other/ca", None)]
    #[case("Issuer/", None)]
    #[case("", None)]
    fn issuer_names(#[case] text: &str, #[case] want: Option<(&str, &str)>) {
        let got = text.parse::<IssuerName>().ok();
        assert_eq!(got.as_ref().map(|i| (i.kind, i.name.as_str())), want);
    }

    /// Defaults of the flags are the ones tests work with.
    #[test]
    fn flag_defaults_are_the_defaults() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            settings: Settings,
        }
        let parsed = <Cli as clap::Parser>::parse_from(["runtime-ctl"]).settings;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Settings::default()));
    }
}
