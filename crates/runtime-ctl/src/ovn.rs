//! OpenShift's OVN-Kubernetes: ambient mTLS needs traffic to leave the node through the host (runtime §17).

use std::time::Duration;

use controller_kit::{backoff::jitter, metrics::Metrics, watch::serves};
use kube::{Api, Client, api::DynamicObject, discovery::ApiResource};
use prometheus_client::metrics::gauge::Gauge;
use serde_json::Value;

use crate::error::{code_of, message_of};

/// The setting that decides, for messages.
const SETTING: &str = "spec.defaultNetwork.ovnKubernetesConfig.gatewayConfig.routingViaHost";
const RETRY: Duration = Duration::from_secs(2);

/// Looks once at the cluster's network, if OpenShift's Network is served, and says whether ambient mTLS can work.
pub async fn look(client: &Client, metrics: &Metrics) {
    loop {
        match network(client).await {
            Ok(found) => return report(found.as_ref().and_then(routing_via_host), metrics),
            // Answers that will not change: the feature counts as absent, said once.
            Err(error) if matches!(code_of(&error), 401 | 403 | 404) => {
                tracing::warn!(
                    "cannot tell whether ambient mTLS works here: network.operator.openshift.io cluster cannot be read: {}",
                    message_of(&error)
                );
                return;
            }
            Err(error) => {
                tracing::debug!("network.operator.openshift.io cannot be read: {}", message_of(&error));
                tokio::time::sleep(jitter(RETRY, 0.1)).await;
            }
        }
    }
}

/// The object `cluster`, where its kind is served.
async fn network(client: &Client) -> kube::Result<Option<Value>> {
    // Discovery first: who may not read the object would be refused on clusters that are no OpenShift as well.
    if !serves(client, "operator.openshift.io/v1", "Network").await? {
        return Ok(None);
    }
    let resource = ApiResource {
        group: "operator.openshift.io".into(),
        version: "v1".into(),
        api_version: "operator.openshift.io/v1".into(),
        kind: "Network".into(),
        plural: "networks".into(),
    };
    let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
    Ok(api.get_opt("cluster").await?.map(|network| network.data))
}

fn report(via_host: Option<bool>, metrics: &Metrics) {
    let Some(via_host) = via_host else { return };
    let gauge = metrics.register(
        "kagenti_ovn_routing_via_host",
        "1 when OVN-Kubernetes routes through the host, as ambient mTLS needs it, else 0",
        Gauge::<i64>::default(),
    );
    gauge.set(i64::from(via_host));
    if !via_host {
        tracing::error!(
            "ambient mTLS will not work: OVN-Kubernetes does not route through the host; set {SETTING} to true in \
             network.operator.openshift.io cluster"
        );
    }
}

/// Whether OVN-Kubernetes routes through the host; none for other networks.
fn routing_via_host(network: &Value) -> Option<bool> {
    let default = network.pointer("/spec/defaultNetwork")?;
    (default.get("type")? == "OVNKubernetes").then(|| {
        default.pointer("/ovnKubernetesConfig/gatewayConfig/routingViaHost") == Some(&Value::Bool(true))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    /// Runtime §17: only OVNKubernetes, only an explicit true.
    #[rstest]
    #[case(json!({"type": "OVNKubernetes"}), Some(false))]
    #[case(json!({"type": "OVNKubernetes", "ovnKubernetesConfig": {"gatewayConfig": {"routingViaHost": true}}}), Some(true))]
    #[case(json!({"type": "OVNKubernetes", "ovnKubernetesConfig": {"gatewayConfig": {"routingViaHost": false}}}), Some(false))]
    #[case(json!({"type": "OpenShiftSDN"}), None)]
    #[case(json!({}), None)]
    fn routing(#[case] network: Value, #[case] want: Option<bool>) {
        assert_eq!(routing_via_host(&json!({"spec": {"defaultNetwork": network}})), want);
    }
}
