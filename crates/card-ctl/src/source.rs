//! Where the card of a workload is read from (card §6.3, §6.4). Pure.

use std::sync::Arc;

use api_types::card::reason;

use crate::{
    fetch::{
        Dial,
        address::{self, Choice, Endpoint, NoAddress, PodRef, ServiceFacts, ServicePort, SliceFacts},
    },
    index::{Service, Slice},
    settings::{Settings, SourceKind},
    status::Stop,
    workload::Workload,
};

/// What is known of the own identity (card §7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Verified fetch is on.
    pub enabled: bool,
    /// It is active: an SVID was obtained, or must be.
    pub active: bool,
}

/// How to get the card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Fetch it under mTLS; nothing else counts.
    Mtls(u16),
    /// The first of these that gives a document.
    Plain {
        /// The ConfigMap may be used.
        config_map: bool,
        /// HTTP may be used, at this port.
        http: Option<u16>,
        /// Verified fetch is active, but the Service has no port for it.
        fallback: bool,
    },
    /// Not at all.
    Refused(Stop),
}

/// Chooses. `held` = a card of the workload has the verdict `mTLSVerified` (card §7).
pub fn choose(settings: &Settings, verified: Verified, held: bool, service: &Service) -> Way {
    let ports = service.choice();
    if service.external_name {
        let message =
            format!("Service {} is of type ExternalName, which is never fetched from", service.name);
        return Way::Refused(Stop::inconclusive(reason::FORBIDDEN_TARGET, message));
    }
    let fallback = verified.active && ports.tls_port.is_none();
    match ports.tls_port {
        Some(port) if verified.active => return Way::Mtls(port),
        None if fallback && settings.verified_fetch_required => {
            let message = format!(
                "Service {} has no port named agent-tls, and --verified-fetch-required forbids plain HTTP",
                service.name
            );
            return Way::Refused(Stop::inconclusive(reason::FETCH_FAILED, message));
        }
        _ => {}
    }
    if verified.enabled && !verified.active && held {
        let message = "no SVID: this controller has no identity of its own yet, and a card that was verified over \
                       mTLS is not fetched without it";
        return Way::Refused(Stop::inconclusive(reason::FETCH_FAILED, message));
    }
    Way::Plain {
        config_map: settings.uses(SourceKind::ConfigMap),
        http: settings.uses(SourceKind::Http).then_some(ports.port),
        fallback,
    }
}

/// DNS name of a Service.
pub fn host(service: &str, namespace: &str, domain: &str) -> String {
    format!("{service}.{namespace}.svc.{domain}")
}

/// The address that is stored with the card: always the plain one (card §6.3).
pub fn url(service: &Service, namespace: &str, domain: &str) -> String {
    format!("http://{}:{}", host(&service.name, namespace, domain), service.choice().port)
}

/// What to dial for a port of a Service. `owned` says whether a Pod belongs to the workload.
pub fn dial(
    settings: &Settings,
    namespace: &str,
    service: &Service,
    port: u16,
    slices: &[Arc<Slice>],
    owned: &dyn Fn(&str) -> bool,
) -> Result<Dial, Stop> {
    let facts = facts(service);
    let slices: Vec<SliceFacts<'_>> = slices
        .iter()
        .map(|slice| SliceFacts {
            ports: slice.ports.iter().map(|port| (port.name.as_deref(), port.port)).collect(),
            endpoints: slice
                .endpoints
                .iter()
                .map(|endpoint| Endpoint {
                    addresses: &endpoint.addresses,
                    ready: endpoint.ready,
                    pod: endpoint.pod.as_deref().map(|name| PodRef { namespace: None, name, uid: None }),
                })
                .collect(),
        })
        .collect();
    let choice = Choice {
        mode: settings.fetch_dial,
        policy: settings.fetch_endpoint_policy,
        namespace,
        service: &facts,
        port,
        slices: &slices,
        owned: &|pod| owned(pod.name),
    };
    address::choose(&choice).map_err(|error| {
        let message = format!("Service {}: {error}", service.name);
        match error {
            NoAddress::ExternalName => Stop::inconclusive(reason::FORBIDDEN_TARGET, message),
            NoAddress::NoClusterIp | NoAddress::NoEndpoint => {
                Stop::inconclusive(reason::FETCH_FAILED, message)
            }
        }
    })
}

/// True when the endpoints of a Service decide what is dialled.
pub fn needs_slices(settings: &Settings, service: &Service) -> bool {
    address::needs_slices(settings.fetch_dial, settings.fetch_endpoint_policy, &facts(service))
}

fn facts(service: &Service) -> ServiceFacts<'_> {
    let port = |port: &'_ crate::index::Port| Some((u16::try_from(port.port).ok()?, port.target));
    ServiceFacts {
        external_name: service.external_name,
        cluster_ip: service.cluster_ip.as_deref(),
        ports: service
            .ports
            .iter()
            .filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"))
            .filter_map(|entry| {
                let (number, target) = port(entry)?;
                Some(ServicePort { name: entry.name.as_deref(), port: number, target })
            })
            .collect(),
    }
}

/// Names what is fetched and for which pod template: when this changes, the last answer is of no use.
pub fn fingerprint(workload: &Workload, host: &str, port: u16, mtls: bool) -> Arc<str> {
    let scheme = if mtls { "https" } else { "http" };
    format!("{scheme}://{host}:{port} {}", workload.content_hash).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Port;
    use rstest::rstest;

    fn service(tls: bool) -> Service {
        let mut ports = vec![Port { name: Some("a2a".into()), port: 8000, ..Port::default() }];
        if tls {
            ports.push(Port { name: Some("agent-tls".into()), port: 8443, ..Port::default() });
        }
        Service { name: "echo".into(), ports, ..Service::default() }
    }

    const OFF: Verified = Verified { enabled: false, active: false };
    const WAITING: Verified = Verified { enabled: true, active: false };
    const ACTIVE: Verified = Verified { enabled: true, active: true };

    fn plain(fallback: bool) -> Way {
        Way::Plain { config_map: true, http: Some(8000), fallback }
    }

    /// Card §6.4, §7.
    #[rstest]
    #[case(OFF, false, true, plain(false))]
    #[case(OFF, true, true, plain(false))]
    #[case(ACTIVE, false, true, Way::Mtls(8443))]
    #[case(ACTIVE, false, false, plain(true))]
    #[case(WAITING, false, true, plain(false))]
    fn order(#[case] verified: Verified, #[case] held: bool, #[case] tls: bool, #[case] want: Way) {
        assert_eq!(choose(&Settings::defaults(), verified, held, &service(tls)), want);
    }

    #[test]
    fn what_was_verified_is_not_fetched_in_the_clear() {
        assert!(matches!(
            choose(&Settings::defaults(), WAITING, true, &service(false)),
            Way::Refused(stop) if stop.reason == "FetchFailed"
        ));
        let required = Settings { verified_fetch_required: true, ..Settings::defaults() };
        assert!(matches!(choose(&required, ACTIVE, false, &service(false)), Way::Refused(_)));
        assert_eq!(choose(&required, ACTIVE, false, &service(true)), Way::Mtls(8443));
        let external = Service { external_name: true, ..service(false) };
        assert!(matches!(
            choose(&Settings::defaults(), OFF, false, &external),
            Way::Refused(stop) if stop.reason == "ForbiddenTarget"
        ));
    }

    /// Card §6.3.
    #[test]
    fn the_stored_address_is_the_plain_one() {
        assert_eq!(url(&service(true), "team1", "cluster.local"), "http://echo.team1.svc.cluster.local:8000");
    }
}
