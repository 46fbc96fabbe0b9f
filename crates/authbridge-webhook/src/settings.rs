//! Flags of authbridge-webhook (webhook §2, packaging §8) beside the common ones.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use controller_kit::cli::{self, Bind, Component, Requests, duration};
use jiff::SignedDuration;

use crate::{
    certificates::{manager::Place, plan::Lifetimes},
    registration::{mutating_name, service_name, validating_name},
    sweeper::Patience,
};

/// This binary.
pub const COMPONENT: Component = Component {
    name: "authbridge-webhook",
    about: "Admission server: injects AuthBridge sidecars into agent Pods and validates the suite's objects",
    // An admission waits for its few requests: the limit of a controller that works in the background
    // would turn a burst of new workloads into denials (webhook §18: 200 admissions/s, 3 writes each).
    requests: Requests { qps: 1000, burst: 2000 },
};

/// The command line.
pub type Cli = cli::Cli<Settings, Command>;

/// Sub-commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print version and revision
    Version,
    /// Check a running installation (used by helm test)
    Selftest(SelftestArgs),
    /// The webhook configurations
    Registration {
        /// What to do with them.
        #[command(subcommand)]
        action: RegistrationAction,
    },
}

/// What to do with the webhook configurations.
#[derive(Clone, Debug, Subcommand)]
pub enum RegistrationAction {
    /// Print both configurations as YAML
    Print(PrintArgs),
}

/// Arguments of `registration print`.
#[derive(Args, Clone, Debug)]
pub struct PrintArgs {
    /// Let the API server call this base URL (https://host:port) instead of the Service
    #[arg(long)]
    pub url: Option<String>,
    /// PEM file to put into caBundle; without it the webhook fills caBundle itself
    #[arg(long)]
    pub ca_file: Option<PathBuf>,
    /// Prefix of the object names and of the Service
    #[arg(long, default_value = "kagenti-operator")]
    pub name: String,
    /// Namespace of the webhook; default: POD_NAMESPACE, else kagenti-system
    #[arg(long)]
    pub namespace: Option<String>,
}

/// Arguments of `selftest`.
#[derive(Args, Clone, Debug)]
pub struct SelftestArgs {
    /// Those of every component.
    #[command(flatten)]
    pub common: controller_kit::selftest::SelftestArgs,
    /// Address of the webhook; default: its Service, port 443
    #[arg(long)]
    pub address: Option<String>,
}

/// Flags of this component.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Address of the HTTPS admission server
    #[arg(long, default_value = ":9443")]
    pub webhook_bind_address: Bind,

    /// Directory of the serving certificate; empty = self-managed
    #[arg(long, default_value = "")]
    pub webhook_cert_path: String,

    /// File name of the serving certificate
    #[arg(long, default_value = "tls.crt")]
    pub webhook_cert_name: String,

    /// File name of its key
    #[arg(long, default_value = "tls.key")]
    pub webhook_cert_key: String,

    /// Lifetime of a self-managed authority; it is replaced when a fifth is left
    #[arg(long, default_value = "43800h", value_parser = duration)]
    pub webhook_ca_lifetime: Duration,

    /// Lifetime of a self-managed serving certificate; it is renewed after two thirds
    #[arg(long, default_value = "2160h", value_parser = duration)]
    pub webhook_cert_lifetime: Duration,

    /// How long old and new authority are published together before the certificate changes
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub webhook_ca_overlap: Duration,

    /// Secret of the self-managed serving certificate; the authority's has -ca appended
    #[arg(long, default_value = "kagenti-operator-webhook-server-cert")]
    pub webhook_cert_secret: String,

    /// Prefix of the Service and of the two configurations
    #[arg(long, default_value = "kagenti-operator")]
    pub webhook_fullname: String,

    /// Fill caBundle of the two configurations (self-managed certificate, cluster mode)
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = clap::ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub webhook_publish_ca: bool,

    /// Further names or addresses for the self-managed certificate, comma separated
    #[arg(long, default_value = "", hide_default_value = true)]
    pub webhook_extra_names: String,

    /// DNS domain of the cluster
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,

    /// Platform configuration file
    #[arg(long, default_value = "/etc/kagenti/config.yaml")]
    pub config_path: PathBuf,

    /// Feature gates file
    #[arg(long, default_value = "/etc/kagenti/feature-gates/feature-gates.yaml")]
    pub feature_gates_path: PathBuf,

    /// Time between two looks for ConfigMaps that nobody uses any more
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub orphan_sweep_interval: Duration,

    /// How long such a ConfigMap must be unused before it is deleted
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub orphan_sweep_after: Duration,

    /// false = do not serve admission
    #[arg(long, env = "ENABLE_WEBHOOKS", default_value = "true", hide = true)]
    pub enable_webhooks: String,
}

/// Settings that exclude each other.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// The overlap leaves no time to change the certificate before it ends.
    #[error(
        "--webhook-ca-overlap {overlap:?} is too long for --webhook-cert-lifetime {leaf:?}: it must be less than a quarter of it"
    )]
    Overlap {
        /// The overlap.
        overlap: Duration,
        /// The leaf's lifetime.
        leaf: Duration,
    },
    /// A leaf must not need more than its authority can give.
    #[error("--webhook-ca-lifetime {authority:?} must be at least twice --webhook-cert-lifetime {leaf:?}")]
    Authority {
        /// The authority's lifetime.
        authority: Duration,
        /// The leaf's lifetime.
        leaf: Duration,
    },
}

impl Settings {
    /// Whether admission is served: everything but `false`.
    pub fn serves(&self) -> bool {
        self.enable_webhooks != "false"
    }

    /// Whether the certificate is self-managed.
    pub fn manages_certificate(&self) -> bool {
        self.webhook_cert_path.is_empty()
    }

    /// Lifetimes of the self-managed certificate.
    pub fn lifetimes(&self) -> Result<Lifetimes, SettingsError> {
        let (authority, leaf) = (self.webhook_ca_lifetime, self.webhook_cert_lifetime);
        let overlap = self.webhook_ca_overlap;
        if overlap * 4 >= leaf {
            return Err(SettingsError::Overlap { overlap, leaf });
        }
        if authority < leaf * 2 {
            return Err(SettingsError::Authority { authority, leaf });
        }
        let signed = |d: Duration| SignedDuration::try_from(d).unwrap_or(SignedDuration::MAX);
        Ok(Lifetimes { authority: signed(authority), leaf: signed(leaf), overlap: signed(overlap) })
    }

    /// Where the self-managed certificate lives and which names it has.
    pub fn place(&self, namespace: &str) -> Place {
        let service = service_name(&self.webhook_fullname);
        let mut names: BTreeSet<String> = BTreeSet::from([
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.{}", self.cluster_domain),
            format!("{service}.{namespace}"),
        ]);
        let extra = self.webhook_extra_names.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.extend(extra.map(str::to_owned));
        // A listener on one address is called by that address: by URL, without a Service.
        if let Bind::Address(address) = self.webhook_bind_address {
            names.insert(address.ip().to_string());
        }
        Place { namespace: namespace.to_owned(), secret: self.webhook_cert_secret.clone(), names }
    }

    /// Name of the mutating configuration.
    pub fn mutating_configuration(&self) -> String {
        mutating_name(&self.webhook_fullname)
    }

    /// Name of the validating configuration.
    pub fn validating_configuration(&self) -> String {
        validating_name(&self.webhook_fullname)
    }

    /// How patiently orphans are swept.
    pub fn patience(&self) -> Patience {
        Patience { every: self.orphan_sweep_interval, unused_for: self.orphan_sweep_after }
    }
}

#[cfg(test)]
mod tests {
    use controller_kit::cli::try_parse_from;
    use rstest::rstest;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        try_parse_from(&COMPONENT, std::iter::once(&"authbridge-webhook").chain(args))
    }

    /// Webhook §2: names and defaults.
    #[test]
    fn the_defaults_are_those_of_the_chapter() {
        let cli = parse(&[]).unwrap();
        assert_eq!(cli.own.webhook_bind_address.to_string(), ":9443");
        assert_eq!(cli.common.health_probe_bind_address.to_string(), ":8081");
        assert!(cli.own.manages_certificate() && cli.own.serves());
        assert_eq!(cli.own.config_path.to_str(), Some("/etc/kagenti/config.yaml"));
        assert!((cli.common.kube_qps - 1000.0).abs() < f64::EPSILON);
        let lifetimes = cli.own.lifetimes().unwrap();
        assert_eq!(lifetimes.leaf, SignedDuration::from_hours(2160));
        assert_eq!(lifetimes.overlap, SignedDuration::from_mins(5));
        let names = cli.own.place("ns").names;
        assert!(names.contains("kagenti-operator-webhook-service.ns.svc.cluster.local"));
        assert_eq!(names.len(), 3);
    }

    /// Decision 31: flags of components that do not exist yet are refused, and the message says so.
    #[rstest]
    #[case("--enable-agent-webhook=true", "agent-ctl")]
    #[case("--enable-agentbuild-webhook", "tekton-build-ctl")]
    #[case("--enable-kuadrant", "does not have")]
    fn flags_of_absent_components_are_refused(#[case] flag: &str, #[case] part: &str) {
        let error = parse(&[flag]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(part), "{error}");
    }

    #[test]
    fn lifetimes_that_cannot_work_are_refused() {
        let short = parse(&["--webhook-cert-lifetime=2m", "--webhook-ca-lifetime=6m"]).unwrap();
        assert!(matches!(short.own.lifetimes(), Err(SettingsError::Overlap { .. })));
        let good = ["--webhook-cert-lifetime=2m", "--webhook-ca-lifetime=6m", "--webhook-ca-overlap=10s"];
        assert!(parse(&good).unwrap().own.lifetimes().is_ok());
        let bad = parse(&["--webhook-ca-lifetime=2161h"]).unwrap();
        assert!(matches!(bad.own.lifetimes(), Err(SettingsError::Authority { .. })));
    }

    #[test]
    fn only_false_switches_admission_off() {
        let off = parse(&["--enable-webhooks=false"]).unwrap();
        assert!(!off.own.serves());
        assert!(parse(&["--enable-webhooks=0"]).unwrap().own.serves());
    }

    #[test]
    fn extra_names_join_the_certificate() {
        let cli = parse(&["--webhook-extra-names=127.0.0.1, host.example,"]).unwrap();
        let names = cli.own.place("ns").names;
        assert!(names.contains("127.0.0.1") && names.contains("host.example"));
        assert_eq!(names.len(), 5);
        let cli = parse(&["--webhook-bind-address=127.0.0.1:0"]).unwrap();
        assert!(cli.own.place("ns").names.contains("127.0.0.1"));
    }
}
