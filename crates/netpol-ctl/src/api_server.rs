//! Where the API server is: what an unverified workload may still reach (card §15.2). Pure.

use std::{collections::BTreeMap, collections::BTreeSet, net::IpAddr, sync::Mutex, sync::PoisonError};

use ipnet::IpNet;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Always allowed beside the real ports.
pub const DEFAULT_PORT: u16 = 6443;
/// Namespace of Service `kubernetes`.
pub const NAMESPACE: &str = "default";
/// Selects its EndpointSlices.
pub const SELECTOR: &str = "kubernetes.io/service-name=kubernetes";

/// Addresses and ports, sorted, without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiServer {
    /// One network per address.
    pub networks: Vec<IpNet>,
    /// TCP ports.
    pub ports: Vec<u16>,
}

/// What one EndpointSlice says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Slice {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
}

impl Slice {
    fn of(slice: EndpointSlice) -> Self {
        let tcp = |protocol: Option<&str>| protocol.is_none_or(|p| p == "TCP");
        let ports = slice.ports.unwrap_or_default().into_iter();
        let ports = ports
            .filter(|port| tcp(port.protocol.as_deref()))
            .filter_map(|port| u16::try_from(port.port?).ok());
        let ready = |conditions: Option<bool>| conditions.unwrap_or(true);
        let endpoints = slice.endpoints.unwrap_or_default().into_iter();
        let addresses = endpoints
            .filter(|endpoint| ready(endpoint.conditions.as_ref().and_then(|c| c.ready)))
            .flat_map(|endpoint| endpoint.addresses)
            .filter_map(|address| address.parse().ok());
        Self { addresses: addresses.collect(), ports: ports.collect() }
    }
}

/// What is known of the API server: the flag, and the EndpointSlices of `default/kubernetes`.
#[derive(Debug)]
pub struct Endpoints {
    fixed: Vec<IpNet>,
    slices: Mutex<BTreeMap<String, Slice>>,
}

impl Endpoints {
    /// With the networks of `--apiserver-cidrs`; they replace the addresses of the EndpointSlices.
    pub fn new(fixed: &[IpNet]) -> Self {
        Self { fixed: fixed.to_vec(), slices: Mutex::default() }
    }

    /// Changes what is known and says whether the outcome is another one.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Slice>)) -> bool {
        let mut slices = self.slices.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.combined(&slices);
        change(&mut slices);
        self.combined(&slices) != before
    }

    /// A slice is there; true when that changes the outcome.
    pub fn upsert(&self, name: &str, slice: EndpointSlice) -> bool {
        self.change(|slices| drop(slices.insert(name.to_owned(), Slice::of(slice))))
    }

    /// A slice is gone; true when that changes the outcome.
    pub fn remove(&self, name: &str) -> bool {
        self.change(|slices| drop(slices.remove(name)))
    }

    /// Only these slices are there; true when that changes the outcome.
    pub fn retain(&self, names: &std::collections::HashSet<String>) -> bool {
        self.change(|slices| slices.retain(|name, _| names.contains(name)))
    }

    /// The outcome.
    pub fn current(&self) -> ApiServer {
        self.combined(&self.slices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn combined(&self, slices: &BTreeMap<String, Slice>) -> ApiServer {
        let networks: BTreeSet<IpNet> = if self.fixed.is_empty() {
            slices.values().flat_map(|slice| &slice.addresses).copied().map(IpNet::from).collect()
        } else {
            self.fixed.iter().copied().collect()
        };
        let ports: BTreeSet<u16> =
            slices.values().flat_map(|slice| &slice.ports).copied().chain([DEFAULT_PORT]).collect();
        ApiServer { networks: networks.into_iter().collect(), ports: ports.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn slice(value: &Value) -> EndpointSlice {
        let mut object =
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {}});
        object.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        serde_json::from_value(object).unwrap()
    }

    fn known(endpoints: &Endpoints) -> (Vec<String>, Vec<u16>) {
        let ApiServer { networks, ports } = endpoints.current();
        (networks.iter().map(ToString::to_string).collect(), ports)
    }

    /// Card §15.2: `/32` or `/128`; every distinct real port plus 6443.
    #[test]
    fn slices_are_added_up() {
        let endpoints = Endpoints::new(&[]);
        assert_eq!(known(&endpoints), (vec![], vec![6443]));
        let v4 = json!({"addressType": "IPv4", "ports": [{"name": "https", "port": 8443, "protocol": "TCP"},
            {"port": 53, "protocol": "UDP"}],
            "endpoints": [{"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.1"]},
                {"addresses": ["10.0.0.9"], "conditions": {"ready": false}}]});
        assert!(endpoints.upsert("kubernetes", slice(&v4)));
        assert!(!endpoints.upsert("kubernetes", slice(&v4)), "no news");
        let v6 = json!({"addressType": "IPv6", "ports": [{"port": 443}], "endpoints": [{"addresses": ["fd00::1"]}]});
        assert!(endpoints.upsert("kubernetes-6", slice(&v6)));
        let all = ["10.0.0.1/32", "10.0.0.2/32", "fd00::1/128"].map(str::to_owned).to_vec();
        assert_eq!(known(&endpoints), (all, vec![443, 6443, 8443]));
        assert!(endpoints.remove("kubernetes-6"));
        assert!(!endpoints.upsert("copy", slice(&v4)), "the same addresses again");
        assert!(!endpoints.retain(&["copy".to_owned()].into()));
        assert!(endpoints.retain(&[].into()));
    }

    /// The flag replaces addresses, not ports.
    #[test]
    fn the_flag_wins() {
        let endpoints = Endpoints::new(&["192.0.2.0/24".parse().unwrap()]);
        let v4 = json!({"addressType": "IPv4", "ports": [{"port": 443}], "endpoints": [{"addresses": ["10.0.0.2"]}]});
        endpoints.upsert("kubernetes", slice(&v4));
        assert_eq!(known(&endpoints), (vec!["192.0.2.0/24".into()], vec![443, 6443]));
    }
}
