//! A Pod that carries sidecars already (webhook §11.5; split §9): what is missing is added, nothing else.

use api_types::{names::annotation, platform::PlatformConfig};
use serde_json::Value;

use super::{
    Patch, Reinvocation,
    apps::{AppSettings, ForwardProxy},
    env::EnvEdit,
    mlflow,
    names::{self, volume},
    pod::{Container, Pod, list},
    status::Status,
    volumes::{self, Place},
};

/// Completes an injected Pod. `credentials` is the Secret to mount; `foreign` Pods (made by hand or by a
/// predecessor) get nothing but its mounts.
pub(crate) fn complete(
    pod: &Pod<'_>,
    platform: &PlatformConfig,
    credentials: Option<String>,
    foreign: bool,
) -> Reinvocation {
    let mut answer = Reinvocation::default();
    let status = Status::parse(pod.annotation(annotation::AUTHBRIDGE_STATUS)).filter(|_| !foreign);
    let mut settings = AppSettings { credentials, ..AppSettings::default() };
    if let Some(status) = &status {
        let proxied = |port| ForwardProxy::new(port, &platform.proxy);
        settings.proxy = status.forward_port.map(proxied);
        // The CA is mounted only where its volume is: the Pod was injected with it.
        settings.tls_bridge = status.bridges_tls() && pod.volume(volume::TLS_BRIDGE_CA_CERT).is_some();
        settings.mlflow = mlflow::wanted(pod);
        settings.helpers = status.helpers();
        if !status.mounts_secret() {
            settings.credentials = None;
        }
    }
    if let Some(secret) = settings.credentials.as_deref().filter(|_| settings.mounts_credentials(pod)) {
        let wanted = volumes::credentials(secret);
        match wanted.place(pod) {
            Place::Add => super::volume_set::append(&mut answer.patch, pod, vec![wanted.entry()]),
            Place::Present => {}
            Place::Overridden | Place::Clash => settings.credentials = None,
        }
    }
    for container in pod.running_containers() {
        let env = EnvEdit::new(container);
        settings.edit(pod, container, env, &mut answer.patch, &mut answer.warnings);
    }
    if status.is_some() {
        keep_proxy_init_last(pod, &mut answer.patch);
    }
    answer
}

/// Moves `proxy-init`, with our native sidecars behind it, after the ordinary init containers that another
/// webhook appended: they would run without network otherwise (webhook §10.4).
fn keep_proxy_init_last(pod: &Pod<'_>, patch: &mut Patch) {
    let init = pod.init_containers();
    let ordinary = |container: &Container<'_>| !container.is_native_sidecar();
    let Some(at) = init.iter().position(|container| container.name == names::PROXY_INIT) else { return };
    let last_ordinary = init.iter().rposition(ordinary).unwrap_or(at);
    if last_ordinary <= at {
        return;
    }
    let ours = |container: &Container<'_>| {
        container.index == at
            || (container.index > at && container.is_native_sidecar() && names::is_sidecar(container.name))
    };
    let raw = list(pod.spec(), "initContainers");
    let mut order: Vec<&Value> = Vec::with_capacity(raw.len());
    let mut moved: Vec<&Value> = Vec::new();
    for (container, value) in init.iter().zip(raw) {
        if ours(container) && container.index < last_ordinary {
            moved.push(value);
        } else {
            order.push(value);
        }
        if container.index == last_ordinary {
            order.append(&mut moved);
        }
    }
    patch.replace("/spec/initContainers", order.into_iter().cloned().collect::<Vec<_>>());
}
