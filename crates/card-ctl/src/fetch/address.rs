//! Which addresses a Service stands for (card §6.5, "address selection").
//!
//! Pure: the caller brings plain facts about the Service and its EndpointSlices, nothing is looked up. The deny
//! list is not applied here but where the connection is made.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::request::Dial;

/// The value of `--fetch-dial`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DialMode {
    /// The Service's own cluster IP; a ready endpoint if it is headless.
    #[default]
    ClusterIp,
    /// Always a ready endpoint.
    Endpoints,
    /// What the cluster's DNS says about the Service's name.
    Dns,
}

/// The value of `--fetch-endpoint-policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointPolicy {
    /// Whatever the Service leads to.
    #[default]
    Any,
    /// Only Pods of the workload that the card is about. They are dialled directly, whatever the mode says.
    WorkloadPods,
}

/// A word that is no value of a flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is none of {known}")]
pub struct UnknownWord {
    text: String,
    known: &'static str,
}

/// What matters about a Service.
#[derive(Clone, Debug)]
pub struct ServiceFacts<'a> {
    /// `spec.type` is `ExternalName`.
    pub external_name: bool,
    /// `spec.clusterIP` as it stands: an address, `None`, empty or absent.
    pub cluster_ip: Option<&'a str>,
    /// Its TCP ports.
    pub ports: Vec<ServicePort<'a>>,
}

/// A TCP port of a Service.
#[derive(Clone, Copy, Debug)]
pub struct ServicePort<'a> {
    /// Its name; absent or empty when the Service has only one.
    pub name: Option<&'a str>,
    /// Its number.
    pub port: u16,
    /// `targetPort`, if it is a number.
    pub target: Option<u16>,
}

/// What matters about an EndpointSlice of the Service.
#[derive(Clone, Debug)]
pub struct SliceFacts<'a> {
    /// Its TCP ports with a number.
    pub ports: Vec<(Option<&'a str>, u16)>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint<'a>>,
}

/// One endpoint of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// Its addresses; they are interchangeable. Names (slices of type FQDN) are passed over.
    pub addresses: &'a [String],
    /// `conditions.ready` is not false.
    pub ready: bool,
    /// Its `targetRef`, if that is a Pod.
    pub pod: Option<PodRef<'a>>,
}

/// A Pod that an endpoint claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodRef<'a> {
    /// Its namespace, as the slice says.
    pub namespace: Option<&'a str>,
    /// Its name.
    pub name: &'a str,
    /// Its uid, as the slice says.
    pub uid: Option<&'a str>,
}

/// Everything that the choice depends on.
pub struct Choice<'a> {
    /// `--fetch-dial`.
    pub mode: DialMode,
    /// `--fetch-endpoint-policy`.
    pub policy: EndpointPolicy,
    /// The namespace of card, workload and Service.
    pub namespace: &'a str,
    /// The Service.
    pub service: &'a ServiceFacts<'a>,
    /// The port chosen by runtime §14.
    pub port: u16,
    /// Its EndpointSlices; only looked at when [`needs_slices`] says so.
    pub slices: &'a [SliceFacts<'a>],
    /// Whether a Pod of the namespace belongs to the card's workload.
    pub owned: &'a dyn Fn(&PodRef<'_>) -> bool,
}

/// Why there is nothing to dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// The Service is of type ExternalName: anybody's name, looked up by us (`ForbiddenTarget`).
    #[error("the Service is of type ExternalName, which is never dialled")]
    ExternalName,
    /// The Service has no cluster IP yet.
    #[error("the Service has no cluster IP yet")]
    NoClusterIp,
    /// No ready endpoint (with the policy `workload-pods`: of the workload's Pods).
    #[error("the Service has no ready endpoint that may be dialled")]
    NoEndpoint,
}

/// True when the choice depends on EndpointSlices.
pub fn needs_slices(mode: DialMode, policy: EndpointPolicy, service: &ServiceFacts<'_>) -> bool {
    match (mode, policy) {
        (_, EndpointPolicy::WorkloadPods) | (DialMode::Endpoints, _) => true,
        (DialMode::ClusterIp, EndpointPolicy::Any) => is_headless(service),
        (DialMode::Dns, EndpointPolicy::Any) => false,
    }
}

/// Chooses what to dial. Endpoints come in a fixed order, so that the same one is asked each time.
pub fn choose(choice: &Choice<'_>) -> Result<Dial, NoAddress> {
    if choice.service.external_name {
        return Err(NoAddress::ExternalName);
    }
    if needs_slices(choice.mode, choice.policy, choice.service) {
        return endpoints(choice);
    }
    if choice.mode == DialMode::Dns {
        return Ok(Dial::Lookup);
    }
    let address: Option<IpAddr> = choice.service.cluster_ip.and_then(|address| address.parse().ok());
    address
        .map(|address| Dial::Addresses(vec![SocketAddr::new(address, choice.port)]))
        .ok_or(NoAddress::NoClusterIp)
}

fn is_headless(service: &ServiceFacts<'_>) -> bool {
    service.cluster_ip == Some("None")
}

fn endpoints(choice: &Choice<'_>) -> Result<Dial, NoAddress> {
    let mut found = Vec::new();
    for slice in choice.slices {
        let port = slice_port(choice, slice);
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready && allowed(choice, endpoint))
        {
            let addresses = endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok());
            found.extend(addresses.map(|address| SocketAddr::new(address, port)));
        }
    }
    found.sort_unstable();
    found.dedup();
    if found.is_empty() { Err(NoAddress::NoEndpoint) } else { Ok(Dial::Addresses(found)) }
}

fn allowed(choice: &Choice<'_>, endpoint: &Endpoint<'_>) -> bool {
    choice.policy == EndpointPolicy::Any
        || endpoint.pod.is_some_and(|pod| {
            pod.namespace.is_none_or(|namespace| namespace == choice.namespace) && (choice.owned)(&pod)
        })
}

/// The slice's port of the same name, else its only one, else the Service port's numeric target, else the
/// chosen number itself.
fn slice_port(choice: &Choice<'_>, slice: &SliceFacts<'_>) -> u16 {
    let service_port = choice.service.ports.iter().find(|port| port.port == choice.port);
    let name_of = |name: Option<&str>| name.unwrap_or_default().to_owned();
    let named = service_port.and_then(|port| {
        let wanted = name_of(port.name);
        slice.ports.iter().find(|(name, _)| name_of(*name) == wanted).map(|(_, port)| *port)
    });
    let only = match slice.ports.as_slice() {
        [(_, port)] => Some(*port),
        _ => None,
    };
    named.or(only).or(service_port.and_then(|port| port.target)).unwrap_or(choice.port)
}

impl FromStr for DialMode {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "clusterip" => Ok(Self::ClusterIp),
            "endpoints" => Ok(Self::Endpoints),
            "dns" => Ok(Self::Dns),
            _ => Err(unknown(text, "clusterip, endpoints, dns")),
        }
    }
}

impl fmt::Display for DialMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClusterIp => "clusterip",
            Self::Endpoints => "endpoints",
            Self::Dns => "dns",
        })
    }
}

impl FromStr for EndpointPolicy {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "any" => Ok(Self::Any),
            "workload-pods" => Ok(Self::WorkloadPods),
            _ => Err(unknown(text, "any, workload-pods")),
        }
    }
}

impl fmt::Display for EndpointPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any",
            Self::WorkloadPods => "workload-pods",
        })
    }
}

fn unknown(text: &str, known: &'static str) -> UnknownWord {
    UnknownWord { text: text.chars().take(64).collect(), known }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn service<'a>(cluster_ip: Option<&'a str>, ports: &[(&'a str, u16, Option<u16>)]) -> ServiceFacts<'a> {
        let ports = ports
            .iter()
            .map(|&(name, port, target)| ServicePort { name: Some(name), port, target })
            .collect();
        ServiceFacts { external_name: false, cluster_ip, ports }
    }

    fn texts(addresses: &[&str]) -> Vec<String> {
        addresses.iter().map(|&address| address.to_owned()).collect()
    }

    fn slice<'a>(ports: &[(&'a str, u16)], addresses: &'a [String]) -> SliceFacts<'a> {
        let endpoint = Endpoint { addresses, ready: true, pod: None };
        SliceFacts {
            ports: ports.iter().map(|&(name, port)| (Some(name), port)).collect(),
            endpoints: vec![endpoint],
        }
    }

    fn chosen(
        mode: DialMode,
        service: &ServiceFacts<'_>,
        slices: &[SliceFacts<'_>],
    ) -> Result<Dial, NoAddress> {
        choose(&Choice {
            mode,
            policy: EndpointPolicy::Any,
            namespace: "team1",
            service,
            port: 8000,
            slices,
            owned: &|_| false,
        })
    }

    #[allow(clippy::unnecessary_wraps, reason = "the shape of what it is compared with")]
    fn to(addresses: &[&str]) -> Result<Dial, NoAddress> {
        Ok(Dial::Addresses(addresses.iter().map(|address| address.parse().expect("an address")).collect()))
    }

    #[test]
    fn cluster_ip_is_dialled_without_a_look_at_slices() {
        let service = service(Some("10.96.0.7"), &[("a2a", 8000, None)]);
        let elsewhere = texts(&["10.0.0.1"]);
        let slices = [slice(&[("a2a", 9000)], &elsewhere)];
        assert_eq!(chosen(DialMode::ClusterIp, &service, &slices), to(&["10.96.0.7:8000"]));
        assert!(!needs_slices(DialMode::ClusterIp, EndpointPolicy::Any, &service));
    }

    #[rstest]
    #[case(None)]
    #[case(Some(""))]
    #[case(Some("not an address"))]
    fn a_service_without_cluster_ip(#[case] cluster_ip: Option<&str>) {
        let service = service(cluster_ip, &[("a2a", 8000, None)]);
        assert_eq!(chosen(DialMode::ClusterIp, &service, &[]), Err(NoAddress::NoClusterIp));
    }

    #[test]
    fn ipv6_cluster_ip() {
        let service = service(Some("fd00::7"), &[]);
        assert_eq!(chosen(DialMode::ClusterIp, &service, &[]), to(&["[fd00::7]:8000"]));
    }

    #[rstest]
    #[case(DialMode::ClusterIp)]
    #[case(DialMode::Endpoints)]
    #[case(DialMode::Dns)]
    fn external_names_are_refused(#[case] mode: DialMode) {
        let external = ServiceFacts { external_name: true, ..service(None, &[]) };
        assert_eq!(chosen(mode, &external, &[]), Err(NoAddress::ExternalName));
    }

    #[rstest]
    #[case::by_name(&[("metrics", 9090), ("a2a", 31000)], "10.0.0.1:31000")]
    #[case::the_only_one(&[("other", 31000)], "10.0.0.1:31000")]
    #[case::numeric_target(&[("x", 1), ("y", 2)], "10.0.0.1:8080")]
    #[case::none_at_all(&[], "10.0.0.1:8080")]
    fn port_of_a_slice(#[case] ports: &[(&str, u16)], #[case] wanted: &str) {
        let service = service(Some("None"), &[("a2a", 8000, Some(8080))]);
        let addresses = texts(&["10.0.0.1"]);
        let slices = [slice(ports, &addresses)];
        assert_eq!(chosen(DialMode::ClusterIp, &service, &slices), to(&[wanted]), "headless");
        let elsewhere = ServiceFacts { cluster_ip: Some("10.96.0.7"), ..service };
        assert_eq!(chosen(DialMode::Endpoints, &elsewhere, &slices), to(&[wanted]), "endpoints");
    }

    #[test]
    fn without_any_hint_the_service_port_number_is_used() {
        let service = service(Some("None"), &[("a2a", 8000, None)]);
        let addresses = texts(&["10.0.0.1"]);
        assert_eq!(chosen(DialMode::ClusterIp, &service, &[slice(&[], &addresses)]), to(&["10.0.0.1:8000"]));
    }

    #[test]
    fn unnamed_ports_match_each_other() {
        let unnamed = ServicePort { name: None, port: 8000, target: None };
        let service = ServiceFacts { ports: vec![unnamed], ..service(None, &[]) };
        let addresses = texts(&["10.0.0.1"]);
        let slices = [slice(&[("", 7000), ("x", 7001)], &addresses)];
        assert_eq!(chosen(DialMode::Endpoints, &service, &slices), to(&["10.0.0.1:7000"]));
    }

    #[test]
    fn only_ready_addresses_in_a_fixed_order() {
        let service = service(None, &[("a2a", 8000, None)]);
        let (one, two, name) =
            (texts(&["10.0.0.9"]), texts(&["10.0.0.2", "10.0.0.9"]), texts(&["a.example"]));
        let mut dead = slice(&[("a2a", 80)], &one);
        dead.endpoints[0].ready = false;
        let slices =
            [slice(&[("a2a", 80)], &one), dead, slice(&[("a2a", 80)], &two), slice(&[("a2a", 80)], &name)];
        assert_eq!(chosen(DialMode::Endpoints, &service, &slices), to(&["10.0.0.2:80", "10.0.0.9:80"]));
        assert_eq!(chosen(DialMode::Endpoints, &service, &slices[1..2]), Err(NoAddress::NoEndpoint));
        assert_eq!(chosen(DialMode::Endpoints, &service, &slices[3..]), Err(NoAddress::NoEndpoint));
        assert_eq!(chosen(DialMode::Endpoints, &service, &[]), Err(NoAddress::NoEndpoint));
    }

    #[test]
    fn dns_leaves_the_look_up_to_the_connection() {
        assert_eq!(chosen(DialMode::Dns, &service(None, &[]), &[]), Ok(Dial::Lookup));
    }

    #[rstest]
    #[case(DialMode::ClusterIp)]
    #[case(DialMode::Endpoints)]
    #[case(DialMode::Dns)]
    fn workload_pods_defeat_squatters(#[case] mode: DialMode) {
        let service = service(Some("10.96.0.7"), &[("a2a", 8000, None)]);
        let addresses =
            [texts(&["10.0.0.1"]), texts(&["10.0.0.2"]), texts(&["10.0.0.3"]), texts(&["10.0.0.4"])];
        let pods = [
            Some(PodRef { namespace: Some("team1"), name: "mine", uid: Some("u") }),
            Some(PodRef { namespace: Some("team1"), name: "squatter", uid: Some("s") }),
            Some(PodRef { namespace: Some("other"), name: "mine", uid: Some("u") }),
            None,
        ];
        let slices: Vec<_> = addresses
            .iter()
            .zip(pods)
            .map(|(addresses, pod)| {
                let mut slice = slice(&[("a2a", 80)], addresses);
                slice.endpoints[0].pod = pod;
                slice
            })
            .collect();
        let choice = Choice {
            mode,
            policy: EndpointPolicy::WorkloadPods,
            namespace: "team1",
            service: &service,
            port: 8000,
            slices: &slices,
            owned: &|pod| pod.name == "mine",
        };
        assert_eq!(choose(&choice), to(&["10.0.0.1:80"]));
        assert_eq!(choose(&Choice { owned: &|_| false, ..choice }), Err(NoAddress::NoEndpoint));
    }

    #[test]
    fn words_of_the_flags() {
        for word in ["clusterip", "endpoints", "dns"] {
            assert_eq!(word.parse::<DialMode>().expect(word).to_string(), word);
        }
        for word in ["any", "workload-pods"] {
            assert_eq!(word.parse::<EndpointPolicy>().expect(word).to_string(), word);
        }
        assert!("DNS".parse::<DialMode>().expect_err("unknown").to_string().contains("clusterip"));
    }
}
