//! Services of each namespace, and the endpoints behind them where they are watched.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use api_types::service_port::{self, PortChoice, ServiceFacts, ServicePort};
use k8s_openapi::{
    api::{core::v1, discovery::v1 as discovery},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::ObjectKey;
use crate::workload::Workload;

/// A Service as kept in the index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    /// Name.
    pub name: String,
    /// `spec.clusterIP`: an address, `None` or nothing.
    pub cluster_ip: Option<String>,
    /// `spec.type`.
    pub external_name: bool,
    /// `spec.selector`.
    pub selector: Option<BTreeMap<String, String>>,
    /// Annotation `kagenti.io/port`.
    pub port_annotation: Option<String>,
    /// Ports: name, port, protocol, numeric target port.
    pub ports: Vec<Port>,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Port {
    /// Name.
    pub name: Option<String>,
    /// Number.
    pub port: i32,
    /// Protocol.
    pub protocol: Option<String>,
    /// `targetPort` when it is a number.
    pub target: Option<u16>,
}

impl Service {
    /// Compacts an object.
    pub fn of(service: v1::Service) -> Option<(ObjectKey, Self)> {
        let key = ObjectKey::new(service.metadata.namespace?, service.metadata.name?);
        let spec = service.spec.unwrap_or_default();
        let annotations = service.metadata.annotations.unwrap_or_default();
        let ports = spec.ports.unwrap_or_default().into_iter().map(|port| Port {
            target: match &port.target_port {
                Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
                _ => None,
            },
            name: port.name,
            port: port.port,
            protocol: port.protocol,
        });
        let service = Self {
            name: key.name.clone(),
            cluster_ip: spec.cluster_ip,
            external_name: spec.type_.as_deref() == Some("ExternalName"),
            selector: spec.selector,
            port_annotation: annotations.get(api_types::names::annotation::PORT).cloned(),
            ports: ports.collect(),
        };
        Some((key, service))
    }

    /// Which ports answer for the card.
    pub fn choice(&self) -> PortChoice {
        let ports = self.ports.iter().map(|port| ServicePort {
            name: port.name.as_deref(),
            port: port.port,
            protocol: port.protocol.as_deref(),
        });
        service_port::choose_ports(self.port_annotation.as_deref(), ports)
    }

    /// It has no address of its own.
    pub fn is_headless(&self) -> bool {
        self.cluster_ip.as_deref() == Some("None")
    }
}

/// An EndpointSlice as kept in the index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slice {
    /// Ports.
    pub ports: Vec<SlicePort>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port of a slice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SlicePort {
    /// Name of the Service's port.
    pub name: Option<String>,
    /// Number.
    pub port: u16,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Addresses.
    pub addresses: Vec<String>,
    /// `conditions.ready` is not false.
    pub ready: bool,
    /// The Pod of the same namespace behind it.
    pub pod: Option<String>,
}

impl Slice {
    /// Compacts an object: its key, the Service it belongs to, the slice.
    pub fn of(slice: discovery::EndpointSlice) -> Option<(ObjectKey, String, Self)> {
        let key = ObjectKey::new(slice.metadata.namespace?, slice.metadata.name?);
        let service = slice.metadata.labels?.remove("kubernetes.io/service-name")?;
        let ports = slice.ports.unwrap_or_default().into_iter().filter_map(|port| {
            let tcp = port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
            let number = port.port.and_then(|port| u16::try_from(port).ok()).filter(|_| tcp)?;
            Some(SlicePort { name: port.name.filter(|name| !name.is_empty()), port: number })
        });
        let namespace = key.namespace.clone();
        let endpoints = slice.endpoints.unwrap_or_default().into_iter().map(|endpoint| Endpoint {
            addresses: endpoint.addresses,
            ready: endpoint.conditions.and_then(|conditions| conditions.ready) != Some(false),
            pod: endpoint
                .target_ref
                .filter(|target| target.kind.as_deref() == Some("Pod"))
                .filter(|target| target.namespace.as_ref().is_none_or(|ns| *ns == namespace))
                .and_then(|target| target.name),
        });
        let slice = Self { ports: ports.collect(), endpoints: endpoints.collect() };
        Some((key, service, slice))
    }
}

type SliceMap = HashMap<ObjectKey, BTreeMap<String, Arc<Slice>>>;

/// The index.
#[derive(Debug, Default)]
pub struct Services {
    inner: RwLock<HashMap<String, BTreeMap<String, Arc<Service>>>>,
    /// Slices by Service, then by name.
    slices: RwLock<(SliceMap, HashMap<ObjectKey, ObjectKey>)>,
}

type Map = HashMap<String, BTreeMap<String, Arc<Service>>>;

impl Services {
    fn read(&self) -> RwLockReadGuard<'_, Map> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Map> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a Service; returns what was there.
    pub fn upsert(&self, key: &ObjectKey, service: Service) -> Option<Arc<Service>> {
        self.write().entry(key.namespace.clone()).or_default().insert(key.name.clone(), Arc::new(service))
    }

    /// Removes a Service.
    pub fn remove(&self, key: &ObjectKey) -> Option<Arc<Service>> {
        let mut map = self.write();
        let services = map.get_mut(&key.namespace)?;
        let gone = services.remove(&key.name);
        if services.is_empty() {
            map.remove(&key.namespace);
        }
        gone
    }

    /// After a new list: removes what was not in it.
    pub fn retain(
        &self,
        namespace: Option<&str>,
        seen: &HashSet<ObjectKey>,
    ) -> Vec<(ObjectKey, Arc<Service>)> {
        let gone: Vec<ObjectKey> = {
            let map = self.read();
            let keys = map.iter().flat_map(|(ns, services)| {
                services.keys().map(move |name| ObjectKey::new(ns.clone(), name.clone()))
            });
            keys.filter(|key| namespace.is_none_or(|ns| key.namespace == ns) && !seen.contains(key)).collect()
        };
        gone.into_iter().filter_map(|key| self.remove(&key).map(|service| (key, service))).collect()
    }

    /// One Service.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.read().get(namespace)?.get(name).cloned()
    }

    /// Number of Services.
    pub fn len(&self) -> usize {
        self.read().values().map(BTreeMap::len).sum()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// The Service of a workload (runtime §14).
    pub fn of_workload(&self, workload: &Workload) -> Option<Arc<Service>> {
        let map = self.read();
        let services = map.get(&workload.key.namespace)?;
        if let Some(same) = services.get(&workload.key.name) {
            return Some(same.clone());
        }
        let facts = services
            .values()
            .map(|service| ServiceFacts { name: &service.name, selector: service.selector.as_ref() });
        let name = service_port::choose_service(&workload.key.name, Some(&workload.template_labels), facts)?;
        services.get(name).cloned()
    }

    /// Stores a slice; true when that changed something.
    pub fn upsert_slice(&self, key: &ObjectKey, service: &str, slice: Slice) -> bool {
        let owner = ObjectKey::new(key.namespace.clone(), service);
        let mut slices = self.slices.write().unwrap_or_else(PoisonError::into_inner);
        let (by_service, owners) = &mut *slices;
        if let Some(former) = owners.insert(key.clone(), owner.clone())
            && former != owner
            && let Some(map) = by_service.get_mut(&former)
        {
            map.remove(&key.name);
        }
        let map = by_service.entry(owner).or_default();
        let same = map.get(&key.name).is_some_and(|old| **old == slice);
        map.insert(key.name.clone(), Arc::new(slice));
        !same
    }

    /// Removes a slice; returns its Service.
    pub fn remove_slice(&self, key: &ObjectKey) -> Option<ObjectKey> {
        let mut slices = self.slices.write().unwrap_or_else(PoisonError::into_inner);
        let (by_service, owners) = &mut *slices;
        let owner = owners.remove(key)?;
        if let Some(map) = by_service.get_mut(&owner) {
            map.remove(&key.name);
            if map.is_empty() {
                by_service.remove(&owner);
            }
        }
        Some(owner)
    }

    /// After a new list of slices: removes what was not in it.
    pub fn retain_slices(&self, namespace: Option<&str>, seen: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        let gone: Vec<ObjectKey> = {
            let slices = self.slices.read().unwrap_or_else(PoisonError::into_inner);
            let scoped =
                |key: &&ObjectKey| namespace.is_none_or(|ns| key.namespace == ns) && !seen.contains(*key);
            slices.1.keys().filter(scoped).cloned().collect()
        };
        gone.iter().filter_map(|key| self.remove_slice(key)).collect()
    }

    /// Slices of a Service, by name.
    pub fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<Slice>> {
        let slices = self.slices.read().unwrap_or_else(PoisonError::into_inner);
        let key = ObjectKey::new(namespace, service);
        slices.0.get(&key).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds::WorkloadKind, workload::tests::workload};
    use serde_json::json;

    #[test]
    fn the_service_of_the_same_name_wins_over_a_selector() {
        let index = Services::default();
        let put = |name: &str, selector: serde_json::Value| {
            let object =
                json!({"metadata": {"namespace": "team1", "name": name}, "spec": {"selector": selector}});
            let (key, service) = Service::of(serde_json::from_value(object).unwrap()).unwrap();
            index.upsert(&key, service);
        };
        let object = json!({"spec": {"template": {"metadata": {"labels": {"app": "x"}}}}});
        let workload = workload(WorkloadKind::Deployment, object);
        put("zz", json!({"app": "x"}));
        put("a", json!({"app": "y"}));
        assert_eq!(index.of_workload(&workload).unwrap().name, "zz");
        put("w", json!({}));
        assert_eq!(index.of_workload(&workload).unwrap().name, "w");
    }

    #[test]
    fn slices_follow_their_service() {
        let index = Services::default();
        let put = |service: &str| {
            let object = json!({
                "metadata": {"namespace": "n", "name": "s-1", "labels": {"kubernetes.io/service-name": service}},
                "addressType": "IPv4",
                "ports": [{"name": "a2a", "port": 8000}, {"port": 53, "protocol": "UDP"}],
                "endpoints": [
                    {"addresses": ["10.0.0.1"], "conditions": {"ready": true},
                     "targetRef": {"kind": "Pod", "name": "p", "namespace": "n"}},
                    {"addresses": ["10.0.0.2"], "conditions": {"ready": false}, "targetRef": {"kind": "Node", "name": "p"}},
                ],
            });
            let (key, service, slice) = Slice::of(serde_json::from_value(object).unwrap()).unwrap();
            index.upsert_slice(&key, &service, slice)
        };
        assert!(put("a"));
        assert!(!put("a"), "nothing new");
        assert!(put("b"));
        assert!(index.slices("n", "a").is_empty());
        let slice = index.slices("n", "b")[0].clone();
        assert_eq!(slice.ports, [SlicePort { name: Some("a2a".into()), port: 8000 }]);
        assert_eq!((slice.endpoints[0].ready, slice.endpoints[0].pod.as_deref()), (true, Some("p")));
        assert_eq!((slice.endpoints[1].ready, slice.endpoints[1].pod.as_deref()), (false, None));
        assert_eq!(index.retain_slices(None, &HashSet::new()), [ObjectKey::new("n", "b")]);
    }
}
