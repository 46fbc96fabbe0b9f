//! The ConfigMaps of one injected Pod (webhook §12; split §6).

use std::collections::BTreeMap;

use api_types::names::{configmap, manager};

use super::{Deny, DenyReason, PlannedConfigMap, Warning, plan::Plan, volume_set::VolumeSet};
use crate::render::{
    config::{self, SidecarConfig},
    envoy::{self, EnvoyConfig},
    helper_conf,
};

/// Renders the ConfigMaps. A Pod without proxy writes the key `helper.conf` alone, with a field manager of its
/// own, so that a `config.yaml` still mounted by older Pods stays.
pub(crate) fn config_maps(
    plan: &Plan<'_>,
    volumes: &VolumeSet,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<PlannedConfigMap>, Deny> {
    let names = plan.inputs.names;
    let mut data = BTreeMap::new();
    if volumes.renders_helper_conf {
        data.insert(configmap::HELPER_KEY, helper_file(plan)?);
    }
    if !plan.decision.proxy {
        let lone = PlannedConfigMap::new(names.config.clone(), manager::WEBHOOK_HELPER, data);
        return Ok(Some(lone).filter(|map| !map.data.is_empty()).into_iter().collect());
    }
    data.insert(configmap::CONFIG_KEY, sidecar_file(plan, warnings));
    let mut maps = vec![PlannedConfigMap::new(names.config.clone(), manager::WEBHOOK, data)];
    if plan.envoy() && !volumes.own_envoy_config {
        maps.push(PlannedConfigMap::new(names.envoy.clone(), manager::WEBHOOK, envoy_files(plan)));
    }
    Ok(maps)
}

fn helper_file(plan: &Plan<'_>) -> Result<String, Deny> {
    helper_conf::render(plan.platform().spiffe.socket_file(), plan.inputs.namespace.authbridge)
        .map_err(|error| Deny { code: 403, reason: DenyReason::BadAudience, message: error.to_string() })
}

fn sidecar_file(plan: &Plan<'_>, warnings: &mut Vec<Warning>) -> String {
    let inputs = plan.inputs;
    let config = SidecarConfig {
        base: inputs.namespace.runtime_config.parsed(),
        authbridge: inputs.namespace.authbridge,
        decision: plan.decision,
        ports: &plan.ports,
        allowed_audiences: inputs.runtime.map_or(&[], |spec| spec.allowed_audiences()),
        socket: &plan.platform().spiffe.socket_path,
        pinned: inputs.pinned_config,
    };
    config::render(&config, warnings)
}

fn envoy_files(plan: &Plan<'_>) -> BTreeMap<&'static str, String> {
    let mtls = plan.decision.mtls.value;
    let config = EnvoyConfig {
        proxy: &plan.platform().proxy,
        mtls,
        trust_domain: plan
            .inputs
            .runtime
            .and_then(|spec| spec.trust_domain())
            .filter(|domain| !domain.is_empty()),
    };
    let mut files = BTreeMap::from([(configmap::ENVOY_KEY, envoy::render(&config))]);
    if mtls != api_types::injection::Mtls::Disabled {
        files.insert("sds-identity.yaml", envoy::SDS_IDENTITY.to_owned());
        files.insert("sds-trust.yaml", envoy::SDS_TRUST.to_owned());
    }
    files
}
