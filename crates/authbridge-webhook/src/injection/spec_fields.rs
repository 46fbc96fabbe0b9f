//! Fields of the Pod beside its containers and volumes: labels, annotations, ServiceAccount, security context.

use std::collections::BTreeMap;

use api_types::{
    injection::Inbound,
    names::{annotation, label},
};
use serde_json::{Map, Value, json};

use super::{
    Patch, Warning, WarningCode,
    patch::token,
    plan::Plan,
    pod::{Pod, text},
};

/// Lets the sidecar listen on the agent's privileged port without a capability (webhook §9).
const UNPRIVILEGED_PORTS: &str = "net.ipv4.ip_unprivileged_port_start";

/// `spec.securityContext`: fsGroup (webhook §11.1) and the sysctl for privileged ports (webhook §9).
pub(crate) fn security_context(plan: &Plan<'_>, patch: &mut Patch) {
    let pod = plan.inputs.pod;
    let mut wanted = Map::new();
    let fs_group = plan.platform().pod.fs_group.filter(|_| plan.decision.spire);
    if let Some(group) = fs_group.filter(|_| pod.security("fsGroup").is_none()) {
        wanted.insert("fsGroup".into(), group.into());
    }
    let takes_port = plan.http_proxy() && plan.decision.inbound.value == Inbound::ReverseProxy;
    let sysctls = pod.security("sysctls").and_then(Value::as_array);
    let present = |list: &Vec<Value>| list.iter().any(|sysctl| sysctl["name"] == UNPRIVILEGED_PORTS);
    let sysctl = (takes_port && plan.ports.original < 1024 && !sysctls.is_some_and(present))
        .then(|| json!({"name": UNPRIVILEGED_PORTS, "value": "0"}));
    if let Some(sysctl) = sysctl {
        if sysctls.is_some() {
            patch.add("/spec/securityContext/sysctls/-", sysctl);
        } else {
            wanted.insert("sysctls".into(), json!([sysctl]));
        }
    }
    if wanted.is_empty() {
        return;
    }
    if pod.has_spec("securityContext") {
        for (member, value) in wanted {
            patch.add(format!("/spec/securityContext/{member}"), value);
        }
    } else {
        patch.add("/spec/securityContext", wanted);
    }
}

/// `spec.serviceAccountName` (webhook §11.2). Returns the ServiceAccount that must exist.
pub(crate) fn service_account(
    plan: &Plan<'_>,
    patch: &mut Patch,
    warnings: &mut Vec<Warning>,
) -> Option<String> {
    let decision = plan.decision;
    if !decision.replaces_service_account {
        return None;
    }
    let name = &decision.service_account;
    if plan.inputs.dry_run.is_some_and(|run| !run.service_account_exists) {
        // The API server refuses a Pod that names an unknown ServiceAccount, and a dry run may not create it.
        warnings.push(Warning::new(
            WarningCode::DryRunServiceAccount,
            format!(
                "dry run: ServiceAccount {name} does not exist yet; spec.serviceAccountName is left alone"
            ),
        ));
        return None;
    }
    if text(plan.inputs.pod.spec(), "serviceAccountName") != name {
        patch.add("/spec/serviceAccountName", name.as_str());
    }
    Some(name.clone())
}

/// Labels and annotations (webhook §7.5). `status` is the text of the status annotation.
pub(crate) fn metadata(plan: &Plan<'_>, status: String, patch: &mut Patch) {
    let pod = plan.inputs.pod;
    let decision = plan.decision;
    let mut annotations = BTreeMap::from([(annotation::AUTHBRIDGE_STATUS, status)]);
    if let Some(secret) =
        decision.credentials_secret.as_ref().filter(|_| decision.sets_credentials_annotation)
    {
        annotations.insert(annotation::CREDENTIALS_SECRET, secret.clone());
    }
    members(pod, "annotations", annotations, patch);
    if decision.proxy {
        members(pod, "labels", BTreeMap::from([(label::AUTHBRIDGE, "true".to_owned())]), patch);
    }
}

fn members(pod: &Pod<'_>, map: &str, entries: BTreeMap<&'static str, String>, patch: &mut Patch) {
    if pod.has_metadata_map(map) {
        for (key, value) in entries {
            patch.add(format!("/metadata/{map}/{}", token(key)), value);
        }
    } else {
        let all: Map<String, Value> =
            entries.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
        patch.add(format!("/metadata/{map}"), all);
    }
}
