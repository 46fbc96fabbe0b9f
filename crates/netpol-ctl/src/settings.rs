//! Flags of netpol-ctl beside the common ones (card §15.1).

use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use controller_kit::cli::{Component, Requests, duration_or_zero};
use ipnet::IpNet;

/// This component.
pub const COMPONENT: Component = Component {
    name: "netpol-ctl",
    about: "Turns the verdict on an AgentCard into a NetworkPolicy",
    // A change of the trust bundle or of the API server's address is one of every policy: with the common limit of 100
    // per second 2,000 policies would take 20 s, and 20 s is the most we promise. The API server's own fairness
    // protects it.
    requests: Requests { qps: 500, burst: 1000 },
};

/// From where verified Pods may reach a verified workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum VerifiedPeers {
    /// From the workload's own namespace.
    #[default]
    Namespace,
    /// From every namespace.
    Cluster,
}

/// A list of namespaces: comma separated, blanks trimmed, empties and duplicates dropped, order kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceList(pub Vec<String>);

impl std::str::FromStr for NamespaceList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut names: Vec<String> = Vec::new();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            controller_kit::scope::Scope::parse(name).map_err(|error| error.to_string())?;
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        Ok(Self(names))
    }
}

/// A list of networks: comma separated; an address without length stands for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<IpNet>);

impl std::str::FromStr for Networks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = |text: &str| match text.parse::<IpNet>() {
            Ok(network) => Ok(network.trunc()),
            Err(_) => text.parse::<std::net::IpAddr>().map(IpNet::from).map_err(|_| {
                format!("{text:?} is neither a network nor an address: write 10.0.0.1/32 or fd00::1/128")
            }),
        };
        let mut networks = text
            .split(',')
            .map(str::trim)
            .filter(|t| !t.is_empty())
            .map(network)
            .collect::<Result<Vec<_>, _>>()?;
        networks.sort_unstable();
        networks.dedup();
        Ok(Self(networks))
    }
}

/// The flags.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Keep a NetworkPolicy for every AgentCard with a workload; false = keep none
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub enforce_network_policies: bool,

    /// While enforcement is off: delete the policies made before, once
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub cleanup_on_disable: bool,

    /// Delete all policies of the watched namespaces and the finalizers of the previous operator, then exit
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub cleanup_and_exit: bool,

    /// Namespaces whose Pods may reach every agent, comma separated; default: the own one and kagenti-system
    #[arg(long)]
    pub allow_ingress_namespaces: Option<NamespaceList>,

    /// Where the verified Pods are that may reach a verified agent
    #[arg(long, value_enum, default_value_t)]
    pub verified_peers: VerifiedPeers,

    /// Let unverified agents ask the DNS servers of --dns-namespaces
    #[arg(long, default_value_t = false, default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub restrictive_allow_dns: bool,

    /// Namespaces of the DNS servers, comma separated
    #[arg(long, default_value = "kube-system,openshift-dns")]
    pub dns_namespaces: NamespaceList,

    /// Addresses of the API server, comma separated; default: the endpoints of Service default/kubernetes (not with --watch-namespaces)
    #[arg(long, default_value = "", hide_default_value = true)]
    pub apiserver_cidrs: Networks,

    /// How long a card without any verdict may wait for one before its workload is isolated, from the card's creation
    #[arg(long, default_value = "0s", value_parser = duration_or_zero)]
    pub initial_policy_delay: Duration,
}

impl Settings {
    /// Namespaces whose Pods may reach every agent, in a process that runs in `own`.
    pub fn ingress_namespaces(&self, own: &str) -> Vec<String> {
        if let Some(NamespaceList(names)) = &self.allow_ingress_namespaces {
            return names.clone();
        }
        let mut names = vec![own.to_owned()];
        let suite = api_types::names::DEFAULT_OPERATOR_NAMESPACE;
        if own != suite {
            names.push(suite.to_owned());
        }
        names
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enforce_network_policies: false,
            cleanup_on_disable: true,
            cleanup_and_exit: false,
            allow_ingress_namespaces: None,
            verified_peers: VerifiedPeers::Namespace,
            restrictive_allow_dns: false,
            dns_namespaces: NamespaceList(vec!["kube-system".into(), "openshift-dns".into()]),
            apiserver_cidrs: Networks::default(),
            initial_policy_delay: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use rstest::rstest;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }

    /// Defaults of the flags are the ones tests work with.
    #[test]
    fn flag_defaults_are_the_defaults() {
        let parsed = Cli::parse_from(["netpol-ctl"]).settings;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Settings::default()));
    }

    #[rstest]
    #[case("10.0.0.1", Some(&["10.0.0.1/32"][..]))]
    #[case("10.1.2.3/16, 10.1.9.9/16", Some(&["10.1.0.0/16"][..]))]
    #[case("fd00::1,10.0.0.1/32", Some(&["10.0.0.1/32", "fd00::1/128"][..]))]
    #[case("", Some(&[][..]))]
    #[case("kubernetes.default", None)]
    #[case("10.0.0.1/33", None)]
    fn networks(#[case] text: &str, #[case] want: Option<&[&str]>) {
        let got = text
            .parse::<Networks>()
            .ok()
            .map(|Networks(list)| list.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(
            got.as_deref(),
            want.map(|w| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).as_deref()
        );
    }

    /// Card §15.1: the own namespace and kagenti-system, once each.
    #[rstest]
    #[case(None, "team1", &["team1", "kagenti-system"])]
    #[case(None, "kagenti-system", &["kagenti-system"])]
    #[case(Some("gateway, gateway,team1"), "kagenti-system", &["gateway", "team1"])]
    #[case(Some(""), "kagenti-system", &[])]
    fn ingress(#[case] flag: Option<&str>, #[case] own: &str, #[case] want: &[&str]) {
        let allow_ingress_namespaces = flag.map(|text| text.parse().unwrap());
        let settings = Settings { allow_ingress_namespaces, ..Settings::default() };
        assert_eq!(settings.ingress_namespaces(own), want);
    }

    #[test]
    fn a_bad_namespace_is_refused() {
        assert!("Team_1".parse::<NamespaceList>().is_err());
    }
}
