//! The NetworkPolicy a workload gets (card §15.2). Pure: the same input gives the same bytes.

use std::collections::BTreeMap;

use api_types::{
    AgentCard,
    card::short,
    names::label::{NAMESPACE_NAME, SIGNATURE_VERIFIED},
};
use k8s_openapi::{
    api::networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
        NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};
use kube::Resource;

use crate::{
    api_server::ApiServer,
    card::Card,
    naming::{CARD_ANNOTATION, CARD_LABEL, MANAGED_BY, POLICY_TYPE},
    settings::{Settings, VerifiedPeers},
    verdict::Mode,
};

/// Ports of DNS servers, before and behind the Service of OpenShift's.
const DNS_PORTS: [u16; 2] = [53, 5353];

/// What every policy of the process has in common.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Namespaces whose Pods may reach every agent.
    pub ingress_namespaces: Vec<String>,
    /// Where verified peers are.
    pub verified_peers: VerifiedPeers,
    /// Namespaces of the DNS servers that unverified agents may ask; empty = none.
    pub dns_namespaces: Vec<String>,
}

impl Rules {
    /// From the flags of a process that runs in namespace `own`.
    pub fn new(settings: &Settings, own: &str) -> Self {
        let dns = settings.restrictive_allow_dns.then(|| settings.dns_namespaces.0.clone());
        Self {
            ingress_namespaces: settings.ingress_namespaces(own),
            verified_peers: settings.verified_peers,
            dns_namespaces: dns.unwrap_or_default(),
        }
    }

    /// The spec of a policy for the Pods that `pods` selects.
    pub fn spec(&self, mode: Mode, pods: LabelSelector, api_server: &ApiServer) -> NetworkPolicySpec {
        let mut peers: Vec<_> = self.ingress_namespaces.iter().map(|name| namespace_peer(name)).collect();
        if mode == Mode::Permissive {
            peers.push(self.verified_peer());
        }
        // A rule without peers would let everybody in.
        let ingress = if peers.is_empty() {
            Vec::new()
        } else {
            vec![NetworkPolicyIngressRule { from: Some(peers), ports: None }]
        };
        let egress = match mode {
            Mode::Permissive => vec![NetworkPolicyEgressRule::default()],
            Mode::Restrictive => self.restricted_egress(api_server),
        };
        NetworkPolicySpec {
            pod_selector: Some(pods),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(ingress),
            egress: Some(egress),
        }
    }

    fn verified_peer(&self) -> NetworkPolicyPeer {
        NetworkPolicyPeer {
            pod_selector: Some(labels(SIGNATURE_VERIFIED, "true")),
            namespace_selector: (self.verified_peers == VerifiedPeers::Cluster).then(LabelSelector::default),
            ip_block: None,
        }
    }

    fn restricted_egress(&self, api_server: &ApiServer) -> Vec<NetworkPolicyEgressRule> {
        let mut rules = Vec::new();
        // A rule without destinations would let everything out.
        if !api_server.networks.is_empty() {
            let block = |network: &ipnet::IpNet| NetworkPolicyPeer {
                ip_block: Some(IPBlock { cidr: network.to_string(), except: None }),
                ..NetworkPolicyPeer::default()
            };
            rules.push(NetworkPolicyEgressRule {
                ports: Some(api_server.ports.iter().map(|number| port("TCP", *number)).collect()),
                to: Some(api_server.networks.iter().map(block).collect()),
            });
        }
        if !self.dns_namespaces.is_empty() {
            let ports = DNS_PORTS.iter().flat_map(|number| [port("UDP", *number), port("TCP", *number)]);
            rules.push(NetworkPolicyEgressRule {
                ports: Some(ports.collect()),
                to: Some(self.dns_namespaces.iter().map(|name| namespace_peer(name)).collect()),
            });
        }
        rules
    }
}

fn labels(key: &str, value: &str) -> LabelSelector {
    let labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    LabelSelector { match_labels: Some(labels), match_expressions: None }
}

fn namespace_peer(name: &str) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(labels(NAMESPACE_NAME, name)),
        ..NetworkPolicyPeer::default()
    }
}

fn port(protocol: &str, number: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(number.into())),
        end_port: None,
    }
}

/// Our labels on the policy of a card.
pub fn own_labels(card: &str) -> [(&'static str, String); 3] {
    [
        (MANAGED_BY.0, MANAGED_BY.1.to_owned()),
        (CARD_LABEL, short(card)),
        (POLICY_TYPE.0, POLICY_TYPE.1.to_owned()),
    ]
}

/// The owner reference to a card: garbage collection removes the policy with it.
pub fn owner(card: &Card) -> OwnerReference {
    OwnerReference {
        api_version: AgentCard::api_version(&()).into_owned(),
        kind: AgentCard::kind(&()).into_owned(),
        name: card.key.name.clone(),
        uid: card.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The whole object.
pub fn object(name: &str, card: &Card, spec: NetworkPolicySpec) -> NetworkPolicy {
    let labels = own_labels(&card.key.name).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    NetworkPolicy {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(card.key.namespace.clone()),
            labels: Some(labels),
            annotations: Some(BTreeMap::from([(CARD_ANNOTATION.to_owned(), card.key.name.clone())])),
            owner_references: Some(vec![owner(card)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::by_convention;
    use serde_json::{Value, json};

    fn rules() -> Rules {
        Rules::new(&Settings::default(), "kagenti-system")
    }

    fn spec(rules: &Rules, mode: Mode, networks: &[&str], ports: &[u16]) -> Value {
        let networks = networks.iter().map(|n| n.parse().unwrap()).collect();
        let api_server = ApiServer { networks, ports: ports.to_vec() };
        serde_json::to_value(rules.spec(mode, by_convention("w"), &api_server)).unwrap()
    }

    fn system() -> Value {
        json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kagenti-system"}}})
    }

    /// Card §15.2, the object.
    #[test]
    fn permissive() {
        let spec = spec(&rules(), Mode::Permissive, &["10.0.0.1/32"], &[6443]);
        assert_eq!(
            spec,
            json!({
                "podSelector": {"matchLabels": {"app": "w", "kagenti.io/type": "agent"}},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": [system(),
                    {"podSelector": {"matchLabels": {"agent.kagenti.dev/signature-verified": "true"}}}]}],
                "egress": [{}],
            })
        );
    }

    #[test]
    fn restrictive() {
        let spec = spec(&rules(), Mode::Restrictive, &["10.0.0.1/32", "fd00::1/128"], &[443, 6443]);
        assert_eq!(spec["ingress"], json!([{"from": [system()]}]));
        assert_eq!(
            spec["egress"],
            json!([{
                "ports": [{"protocol": "TCP", "port": 443}, {"protocol": "TCP", "port": 6443}],
                "to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}, {"ipBlock": {"cidr": "fd00::1/128"}}],
            }])
        );
    }

    /// Card §15.2: no address known denies all; a rule without destinations would allow all.
    #[test]
    fn nothing_known_denies_all() {
        let mut rules = rules();
        assert_eq!(spec(&rules, Mode::Restrictive, &[], &[6443])["egress"], json!([]));
        rules.ingress_namespaces.clear();
        assert_eq!(spec(&rules, Mode::Restrictive, &[], &[6443])["ingress"], json!([]));
        assert_eq!(
            spec(&rules, Mode::Permissive, &[], &[6443])["ingress"][0]["from"].as_array().unwrap().len(),
            1
        );
    }

    #[test]
    fn dns_only_to_its_namespaces() {
        let settings = Settings { restrictive_allow_dns: true, ..Settings::default() };
        let mut rules = Rules::new(&settings, "kagenti-system");
        let egress = spec(&rules, Mode::Restrictive, &[], &[6443])["egress"].clone();
        let ports: Vec<_> = egress[0]["ports"].as_array().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(ports.len(), 4, "{ports:?}");
        assert_eq!(
            egress[0]["to"],
            json!([
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}},
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}}},
            ])
        );
        assert_eq!(spec(&rules, Mode::Permissive, &[], &[])["egress"], json!([{}]));
        rules.dns_namespaces.clear();
        assert_eq!(spec(&rules, Mode::Restrictive, &[], &[])["egress"], json!([]));
    }

    #[test]
    fn verified_peers_of_the_whole_cluster() {
        let rules = Rules { verified_peers: VerifiedPeers::Cluster, ..rules() };
        let peer = &spec(&rules, Mode::Permissive, &[], &[])["ingress"][0]["from"][1];
        assert_eq!(peer["namespaceSelector"], json!({}));
        assert_eq!(peer["podSelector"]["matchLabels"]["agent.kagenti.dev/signature-verified"], "true");
    }
}
