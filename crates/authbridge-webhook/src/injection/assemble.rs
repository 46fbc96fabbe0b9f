//! Puts an injection together: every operation of the patch, every object to write (webhook §9-§12).

use api_types::injection::{Decision, Inbound};
use serde_json::Value;

use super::{
    Deny, Injection, Inputs, Patch, Warning, WarningCode, Writes,
    apps::{AppSettings, ForwardProxy, is_app},
    containers::{self, Builder},
    env::EnvEdit,
    generated, mlflow, names,
    plan::{self, Plan},
    pod::Container,
    ports::{self, SidecarPort},
    spec_fields, split,
    status::Status,
    volume_set::{VolumeSet, append_to_spec},
    volumes::credential_mounts,
};

/// Most warnings of one answer; the API server truncates more (webhook §4.8).
const MAX_WARNINGS: usize = 6;

/// The injection of one Pod, or why it is refused.
pub(crate) fn injection(inputs: &Inputs<'_>, mut decision: Decision) -> Result<Injection, Deny> {
    let mut warnings: Vec<Warning> =
        std::mem::take(&mut decision.warnings).into_iter().map(Warning::from).collect();
    let plan = Plan::new(inputs, &decision)?;
    ambiguities(inputs, &plan, &mut warnings);
    plan::weaknesses(&plan, &mut warnings);

    let mut patch = Patch::default();
    let settings = app_settings(&plan);
    let taken = user_containers(&plan, &settings, &mut patch, &mut warnings);
    let mounts_credentials = plan.decision.proxy || settings.mounts_credentials(inputs.pod);
    let volumes = VolumeSet::new(&plan, mounts_credentials, &mut warnings)?;
    let config_maps = generated::config_maps(&plan, &volumes, &mut warnings)?;
    volumes.write(&mut patch, inputs.pod);
    let sidecars = sidecars(&plan, &taken, &mut patch, &mut warnings);
    spec_fields::security_context(&plan, &mut patch);
    let service_account = spec_fields::service_account(&plan, &mut patch, &mut warnings);

    warnings.truncate(MAX_WARNINGS);
    let status = Status::new(&plan, &sidecars, &warnings).to_json();
    spec_fields::metadata(&plan, status, &mut patch);
    let mode = if decision.proxy { decision.mode.value.as_str() } else { "none" };
    Ok(Injection {
        patch,
        warnings,
        writes: Writes { service_account, config_maps },
        decision,
        mode,
        sidecars,
    })
}

fn ambiguities(inputs: &Inputs<'_>, plan: &Plan<'_>, warnings: &mut Vec<Warning>) {
    if let Some(winner) = inputs.ambiguous_runtime {
        warnings.push(Warning::new(
            WarningCode::AmbiguousRuntime,
            format!(
                "several AgentRuntimes target {}: {winner}, the oldest, is used; delete the others",
                inputs.workload.name
            ),
        ));
    }
    if inputs.names.collision && plan.decision.proxy {
        warnings.push(Warning::new(
            WarningCode::ConfigNameCollision,
            format!(
                "another workload named {} owns ConfigMap {}: {} is used",
                inputs.workload.name,
                api_types::owner::config_map_name(&inputs.workload.name),
                inputs.names.config
            ),
        ));
    }
}

fn app_settings(plan: &Plan<'_>) -> AppSettings {
    AppSettings {
        proxy: plan.http_proxy().then(|| ForwardProxy::new(plan.ports.forward, &plan.platform().proxy)),
        tls_bridge: plan.decision.proxy && plan.decision.tls_bridge.value,
        mlflow: mlflow::wanted(plan.inputs.pod),
        credentials: plan.decision.credentials_secret.clone(),
        helpers: Vec::new(),
    }
}

/// Edits the user's containers; returns the ports the sidecar takes over.
fn user_containers(
    plan: &Plan<'_>,
    settings: &AppSettings,
    patch: &mut Patch,
    warnings: &mut Vec<Warning>,
) -> Vec<SidecarPort> {
    let pod = plan.inputs.pod;
    let relocates = plan.http_proxy() && plan.decision.inbound.value == Inbound::ReverseProxy;
    let agent = ports::agent_container(pod, plan.decision.layout.value).filter(|_| relocates);
    let mut taken = Vec::new();
    for container in pod.running_containers() {
        let mut env = EnvEdit::new(container);
        if agent.is_some_and(|agent| !container.init && agent.index == container.index) {
            taken = ports::relocate(patch, &mut env, container, plan.ports.original, plan.ports.relocated);
        }
        settings.edit(pod, container, env, patch, warnings);
    }
    if relocates {
        port_warnings(plan, agent.as_ref(), warnings);
    }
    // A Pod without declared port still needs the inbound listener.
    if relocates && taken.is_empty() { ports::sidecar_ports(taken) } else { taken }
}

fn port_warnings(plan: &Plan<'_>, agent: Option<&Container<'_>>, warnings: &mut Vec<Warning>) {
    let (original, relocated) = (plan.ports.original, plan.ports.relocated);
    let Some(agent) = agent else {
        warnings.push(Warning::new(
            WarningCode::NoContainerPort,
            format!(
                "no container declares a TCP port: {original} is assumed and inbound traffic is forwarded to {relocated}; declare a containerPort"
            ),
        ));
        return;
    };
    if ports::in_arguments(agent, original) {
        warnings.push(Warning::new(
            WarningCode::PortInArguments,
            format!(
                "container {}: command or arguments contain {original}, but the agent must listen on {relocated}: let it read the port from PORT",
                agent.name
            ),
        ));
    }
    let others: Vec<String> = plan
        .inputs
        .pod
        .running_containers()
        .filter(|container| container.init || is_app(container))
        .flat_map(|container| {
            let moved = container.index == agent.index && container.init == agent.init;
            ports::tcp_ports(container).filter(move |port| !moved || *port != original)
        })
        .map(|port| port.to_string())
        .collect();
    if !others.is_empty() {
        warnings.push(Warning::new(
            WarningCode::UnproxiedPorts,
            format!(
                "the sidecar does not protect container ports {}: only {original} is proxied",
                others.join(", ")
            ),
        ));
    }
}

/// Appends `proxy-init` and the long-running containers in the order of webhook §10.4 and split §8; returns the
/// names of the latter.
fn sidecars(
    plan: &Plan<'_>,
    taken: &[SidecarPort],
    patch: &mut Patch,
    warnings: &mut Vec<Warning>,
) -> Vec<&'static str> {
    let decision = plan.decision;
    let native = plan.native(warnings);
    let mut init: Vec<Value> = Vec::new();
    if decision.proxy_init {
        init.push(containers::proxy_init(plan, warnings));
    }
    let proxy = decision.proxy.then(|| {
        let credentials = decision.credentials_secret.as_deref().map(credential_mounts);
        let name = if plan.envoy() { names::ENVOY_PROXY } else { names::AUTHBRIDGE_PROXY };
        (name, containers::proxy(plan, taken, credentials.into_iter().flatten().collect()))
    });
    let helper = decision.helper.then(|| (names::SPIFFE_HELPER, split::spiffe_helper(plan)));
    let registration = decision
        .registration_container
        .then(|| (names::CLIENT_REGISTRATION, split::client_registration(plan)));
    // A native sidecar starts before the next one does: the proxy needs what the helpers bring.
    let order = if native { [helper, registration, proxy] } else { [proxy, helper, registration] };
    let (names, builders): (Vec<&'static str>, Vec<Builder>) = order.into_iter().flatten().unzip();
    let built = builders.into_iter().map(|builder| if native { builder.native() } else { builder }.build());
    if native {
        init.extend(built);
        append_to_spec(patch, plan.inputs.pod, "initContainers", init);
    } else {
        let regular: Vec<Value> = built.collect();
        append_to_spec(patch, plan.inputs.pod, "initContainers", init);
        append_to_spec(patch, plan.inputs.pod, "containers", regular);
    }
    names
}
