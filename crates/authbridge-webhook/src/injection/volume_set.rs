//! The volumes one injected Pod needs (webhook §11.1; split §6).

use api_types::owner;
use serde_json::{Value, json};

use super::{
    Deny, DenyReason, Patch, Warning, WarningCode,
    names::volume,
    plan::Plan,
    pod::Pod,
    volumes::{Accepts, Place, Wanted, clash_message, credentials, spire_socket, tls_bridge},
};

/// The volumes to add, and what the user's own ones change.
#[derive(Debug, Default)]
pub(crate) struct VolumeSet {
    /// Entries to append to `spec.volumes`.
    entries: Vec<Value>,
    /// The user brings `envoy.yaml`: none is generated.
    pub(crate) own_envoy_config: bool,
    /// `helper.conf` must be generated: the helper mounts it from the workload's ConfigMap.
    pub(crate) renders_helper_conf: bool,
}

impl VolumeSet {
    /// Compares what is needed with what the Pod has. `mounts_credentials` = a container will mount the Secret.
    pub(crate) fn new(
        plan: &Plan<'_>,
        mounts_credentials: bool,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, Deny> {
        let mut set = Self::default();
        for wanted in wanted(plan, mounts_credentials) {
            let place = wanted.place(plan.inputs.pod);
            if place == Place::Clash {
                return Err(Deny {
                    code: 403,
                    reason: DenyReason::VolumeClash,
                    message: clash_message(plan.inputs.pod, &wanted),
                });
            }
            if place == Place::Overridden {
                warnings.push(Warning::new(
                    WarningCode::UserVolume,
                    format!(
                        "spec.volumes: the Pod's own volume {} takes the place of the generated one",
                        wanted.name
                    ),
                ));
            }
            match wanted.name.as_str() {
                volume::ENVOY_CONFIG => set.own_envoy_config = place == Place::Overridden,
                volume::SPIFFE_HELPER_CONFIG => {
                    set.renders_helper_conf = place != Place::Overridden && renders_helper_conf(plan);
                }
                _ => {}
            }
            if place == Place::Add {
                set.entries.push(wanted.entry());
            }
        }
        Ok(set)
    }

    /// Appends the new volumes.
    pub(crate) fn write(self, patch: &mut Patch, pod: &Pod<'_>) {
        append(patch, pod, self.entries);
    }
}

/// Appends volumes to the Pod.
pub(crate) fn append(patch: &mut Patch, pod: &Pod<'_>, entries: Vec<Value>) {
    append_to_spec(patch, pod, "volumes", entries);
}

/// Appends entries to a list of `spec`, which is made when it is missing.
pub(crate) fn append_to_spec(patch: &mut Patch, pod: &Pod<'_>, member: &str, entries: Vec<Value>) {
    if entries.is_empty() {
        return;
    }
    if pod.has_spec(member) {
        for entry in entries {
            patch.add(format!("/spec/{member}/-"), entry);
        }
    } else {
        patch.add(format!("/spec/{member}"), entries);
    }
}

/// The helper runs, and the namespace brings no file for it.
fn renders_helper_conf(plan: &Plan<'_>) -> bool {
    plan.decision.helper && plan.namespace_helper_conf().is_none()
}

/// In the order of the table.
fn wanted(plan: &Plan<'_>, mounts_credentials: bool) -> Vec<Wanted> {
    let decision = plan.decision;
    let split = plan.split();
    let writable = |name: &str| Wanted::empty_dir(name).accepting(Accepts::Writable);
    let mut all = vec![writable(volume::SHARED_DATA)];
    if decision.spire && (decision.proxy || decision.helper) {
        all.push(spire_socket());
        all.push(helper_config(plan));
    }
    let shared_svid =
        if split { decision.helper || decision.registration_spire } else { decision.spire && decision.proxy };
    if shared_svid {
        all.push(writable(volume::SVID_OUTPUT));
    }
    if split && decision.spire && decision.proxy {
        all.push(Wanted::empty_dir(volume::AUTHBRIDGE_SVID));
    }
    if plan.envoy() {
        let config = Wanted::config_map(volume::ENVOY_CONFIG, &plan.inputs.names.envoy, false);
        all.push(config.accepting(Accepts::Override));
    }
    if decision.proxy {
        all.push(Wanted::config_map(volume::AUTHPROXY_ROUTES, volume::AUTHPROXY_ROUTES, true));
        all.push(Wanted::config_map(volume::RUNTIME_CONFIG, &plan.inputs.names.config, false));
    }
    if let Some(secret) = decision.credentials_secret.as_deref().filter(|_| mounts_credentials) {
        all.push(credentials(secret));
    }
    if decision.tls_bridge.value && decision.proxy {
        all.extend(tls_bridge(&owner::tls_bridge_secret_name(&plan.inputs.workload.name)));
    }
    all
}

fn helper_config(plan: &Plan<'_>) -> Wanted {
    let name = volume::SPIFFE_HELPER_CONFIG;
    // Optional where no helper reads it: current proxy images fetch their own SVIDs.
    let mut config = Wanted::config_map(name, name, !plan.decision.helper);
    if renders_helper_conf(plan) {
        config.source = json!({"configMap": {
            "name": plan.inputs.names.config,
            "items": [{"key": "helper.conf", "path": "helper.conf"}],
            "optional": false,
        }});
    }
    if plan.split() { config.accepting(Accepts::Files) } else { config }
}
