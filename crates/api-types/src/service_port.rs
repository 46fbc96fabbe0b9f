//! Which Service and port of a workload answer for its card (runtime §14, card §6.3).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServicePort as ApiServicePort;

/// Port used when the Service names none (runtime §14).
pub const DEFAULT_PORT: u16 = 8000;
/// Name of the mTLS port, exactly.
pub const TLS_PORT_NAME: &str = "agent-tls";

/// One port of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServicePort<'a> {
    /// `name`.
    pub name: Option<&'a str>,
    /// `port`.
    pub port: i32,
    /// `protocol`; absent means TCP.
    pub protocol: Option<&'a str>,
}

impl<'a> From<&'a ApiServicePort> for ServicePort<'a> {
    fn from(port: &'a ApiServicePort) -> Self {
        Self { name: port.name.as_deref(), port: port.port, protocol: port.protocol.as_deref() }
    }
}

/// The chosen ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortChoice {
    /// Plain HTTP.
    pub port: u16,
    /// mTLS: the port named `agent-tls`.
    pub tls_port: Option<u16>,
    /// The annotation `kagenti.io/port` was ignored, and why.
    pub warning: Option<String>,
}

/// Chooses the ports of a Service: annotation `kagenti.io/port` (an integer 1-65535, else ignored with a
/// warning), else the TCP port named `a2a`, else `http` (in any case), else the first TCP port that is not
/// `agent-tls`, else 8000.
pub fn choose_ports<'a, P>(annotation: Option<&str>, ports: P) -> PortChoice
where
    P: IntoIterator<Item = ServicePort<'a>>,
    P::IntoIter: Clone,
{
    let tcp = ports.into_iter().filter_map(|port| {
        let tcp = port.protocol.is_none_or(|protocol| protocol.is_empty() || protocol == "TCP");
        Some((port.name.unwrap_or_default(), u16::try_from(port.port).ok().filter(|port| tcp && *port > 0)?))
    });
    let named =
        |wanted: &str| tcp.clone().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, port)| port);
    let tls_port = tcp.clone().find(|(name, _)| *name == TLS_PORT_NAME).map(|(_, port)| port);
    let asked = annotation.map(|text| (text, text.trim().parse::<u16>().ok().filter(|port| *port > 0)));
    let warning = match asked {
        Some((text, None)) => {
            let shown: String = text.chars().take(40).collect();
            Some(format!("annotation kagenti.io/port is {shown:?}, not a port from 1 to 65535; ignored"))
        }
        _ => None,
    };
    let port = asked
        .and_then(|(_, port)| port)
        .or_else(|| named("a2a"))
        .or_else(|| named("http"))
        .or_else(|| tcp.clone().find(|(name, _)| *name != TLS_PORT_NAME).map(|(_, port)| port))
        .unwrap_or(DEFAULT_PORT);
    PortChoice { port, tls_port, warning }
}

/// A Service of the workload's namespace.
#[derive(Clone, Copy, Debug)]
pub struct ServiceFacts<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its selector; absent or empty selects nothing.
    pub selector: Option<&'a BTreeMap<String, String>>,
}

/// Chooses the Service of a workload: the one of the same name, else the first by name whose non-empty selector
/// is a subset of the pod template's labels. Independent of the order of `services`.
pub fn choose_service<'a>(
    workload: &str,
    template_labels: Option<&BTreeMap<String, String>>,
    services: impl IntoIterator<Item = ServiceFacts<'a>>,
) -> Option<&'a str> {
    let mut best: Option<&'a str> = None;
    for service in services {
        if service.name == workload {
            return Some(service.name);
        }
        let selects = service.selector.filter(|selector| !selector.is_empty()).is_some_and(|selector| {
            selector.iter().all(|(key, value)| template_labels.and_then(|map| map.get(key)) == Some(value))
        });
        if selects && best.is_none_or(|name| service.name < name) {
            best = Some(service.name);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    type Ports = &'static [(&'static str, i32, &'static str)];

    fn choose(annotation: Option<&str>, ports: Ports) -> PortChoice {
        choose_ports(
            annotation,
            ports.iter().map(|(name, port, protocol)| ServicePort {
                name: (!name.is_empty()).then_some(*name),
                port: *port,
                protocol: (!protocol.is_empty()).then_some(*protocol),
            }),
        )
    }

    /// Runtime §14.
    #[rstest]
    #[case::none(&[], 8000, None)]
    #[case::first(&[("", 9000, "")], 9000, None)]
    #[case::a2a(&[("http", 80, "TCP"), ("a2a", 8080, "TCP")], 8080, None)]
    #[case::http(&[("metrics", 9090, ""), ("HTTP", 80, "")], 80, None)]
    #[case::not_tls(&[("agent-tls", 8443, ""), ("web", 81, "")], 81, Some(8443))]
    #[case::only_tls(&[("agent-tls", 8443, "TCP")], 8000, Some(8443))]
    #[case::tls_name_is_exact(&[("Agent-TLS", 8443, "TCP")], 8443, None)]
    #[case::udp(&[("http", 53, "UDP"), ("web", 81, "TCP")], 81, None)]
    #[case::out_of_range(&[("a2a", 0, ""), ("http", 70000, ""), ("x", 82, "")], 82, None)]
    fn by_name(#[case] ports: Ports, #[case] port: u16, #[case] tls_port: Option<u16>) {
        assert_eq!(choose(None, ports), PortChoice { port, tls_port, warning: None });
    }

    #[rstest]
    #[case("8080", 8080, false)]
    #[case(" 65535 ", 65535, false)]
    #[case("0", 80, true)]
    #[case("65536", 80, true)]
    #[case("-1", 80, true)]
    #[case("http", 80, true)]
    #[case("", 80, true)]
    fn annotation(#[case] text: &str, #[case] port: u16, #[case] warned: bool) {
        let choice = choose(Some(text), &[("a2a", 80, "")]);
        assert_eq!((choice.port, choice.warning.is_some()), (port, warned));
    }

    #[test]
    fn typed_ports_convert() {
        let typed = ApiServicePort { name: Some("a2a".into()), port: 81, ..ApiServicePort::default() };
        assert_eq!(choose_ports(None, [ServicePort::from(&typed)]).port, 81);
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[rstest]
    #[case::same_name("weather", Some("weather"))]
    #[case::selector("other", Some("b"))]
    fn service(#[case] workload: &str, #[case] expected: Option<&str>) {
        let template = map(&[("app", "w"), ("x", "y")]);
        let (empty, one, two, foreign) =
            (map(&[]), map(&[("app", "w")]), map(&[("app", "w"), ("x", "y")]), map(&[("app", "z")]));
        let services = [
            ServiceFacts { name: "a", selector: Some(&foreign) },
            ServiceFacts { name: "z", selector: Some(&one) },
            ServiceFacts { name: "b", selector: Some(&two) },
            ServiceFacts { name: "0", selector: Some(&empty) },
            ServiceFacts { name: "1", selector: None },
            ServiceFacts { name: "weather", selector: None },
        ];
        assert_eq!(choose_service(workload, Some(&template), services), expected);
        assert_eq!(choose_service(workload, Some(&template), services.into_iter().rev()), expected);
        assert_eq!(choose_service("nobody", None, services), None);
    }
}
