//! What of a Pod the shared decision looks at.

use api_types::{
    injection::{ContainerNames, PodFacts},
    names::annotation,
};

use super::{
    names::{self, volume},
    pod::{Pod, text},
};

/// The facts of one Pod. `workload` is empty while it is not known yet.
pub(crate) fn of<'a>(pod: &'a Pod<'_>, workload: &'a str) -> PodFacts<'a> {
    let spec = pod.spec();
    let account = [text(spec, "serviceAccountName"), text(spec, "serviceAccount")];
    let os = spec.get("os").and_then(|os| os.get("name")).and_then(serde_json::Value::as_str);
    PodFacts {
        workload,
        labels: Some(pod.labels()),
        annotations: Some(pod.annotations()),
        enrolled_as: None,
        service_account: account.into_iter().find(|name| !name.is_empty()),
        host_network: pod.spec_flag("hostNetwork"),
        windows: os == Some("windows"),
        share_process_namespace: pod.spec_flag("shareProcessNamespace"),
        containers: container_names(pod),
    }
}

fn container_names(pod: &Pod<'_>) -> ContainerNames {
    let init = pod.init_containers().iter().map(|container| (container.name, container.is_native_sidecar()));
    let annotated = pod.annotations().contains_key(annotation::AUTHBRIDGE_STATUS);
    let mut names =
        ContainerNames::scan(pod.containers().iter().map(|container| container.name), init, annotated);
    names.own_helper_mounts_svid = pod
        .running_containers()
        .any(|container| container.name == names::SPIFFE_HELPER && container.mounts(volume::SVID_OUTPUT));
    names
}
