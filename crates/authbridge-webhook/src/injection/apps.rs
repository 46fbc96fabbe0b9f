//! Edits of the user's containers (webhook §10.1, §11.3, §11.4), the same on the first pass and later.

use api_types::platform::Proxy;
use serde_json::Value;

use super::{
    Patch, Warning, WarningCode,
    env::{EnvEdit, append_all},
    mlflow,
    names::{self, path, volume},
    pod::{Container, Pod, text},
    volumes::{credential_mounts, mount, mount_path},
};

/// CA variables of the TLS bridge, in order (webhook §11.4).
const CA_VARIABLES: [&str; 7] = [
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
];
const CA_FILE: &str = "/etc/authbridge/tls-bridge-ca/ca.crt";

/// What every app container gets.
#[derive(Debug, Default)]
pub(crate) struct AppSettings {
    /// URL of the forward proxy; `None` without one (mode envoy-sidecar).
    pub(crate) proxy: Option<ForwardProxy>,
    /// The TLS-bridge CA certificate.
    pub(crate) tls_bridge: bool,
    /// MLflow variables.
    pub(crate) mlflow: bool,
    /// Secret to mount where `shared-data` is mounted.
    pub(crate) credentials: Option<String>,
    /// Containers of ours beside the proxy, which get nothing of this (split §5.2).
    pub(crate) helpers: Vec<String>,
}

/// Values of the proxy variables.
#[derive(Debug)]
pub(crate) struct ForwardProxy {
    url: String,
    no_proxy: String,
}

impl ForwardProxy {
    /// The sidecar's forward proxy on its port.
    pub(crate) fn new(port: u16, platform: &Proxy) -> Self {
        Self { url: format!("http://127.0.0.1:{port}"), no_proxy: platform.no_proxy.join(",") }
    }
}

impl AppSettings {
    /// Writes the edits of one container. `env` may hold earlier edits of the same container.
    pub(crate) fn edit(
        &self,
        pod: &Pod<'_>,
        container: &Container<'_>,
        mut env: EnvEdit<'_>,
        patch: &mut Patch,
        warnings: &mut Vec<Warning>,
    ) {
        let mut mounts = Vec::new();
        if self.helpers.iter().any(|helper| helper == container.name) {
            return;
        }
        if is_app(container) {
            if let Some(proxy) = &self.proxy {
                env.add_in_both_cases(&[
                    ("HTTP_PROXY", &proxy.url),
                    ("HTTPS_PROXY", &proxy.url),
                    ("NO_PROXY", &proxy.no_proxy),
                ]);
            }
            if self.mlflow {
                mlflow::add(pod, container, &mut env);
            }
            if self.tls_bridge {
                trust_bridge(container, &mut env, warnings);
                mounts.push(mount(volume::TLS_BRIDGE_CA_CERT, path::TLS_BRIDGE_CA, true));
            }
        }
        if let Some(secret) = self.credentials.as_deref().filter(|_| container.mounts(volume::SHARED_DATA)) {
            mounts.extend(credential_mounts(secret));
        }
        mounts.retain(|mount| !has_mount(container, mount));
        env.finish(patch);
        append_all(patch, container, "volumeMounts", mounts);
    }

    /// True when a container of the Pod will mount the credentials.
    pub(crate) fn mounts_credentials(&self, pod: &Pod<'_>) -> bool {
        self.credentials.is_some()
            && pod.running_containers().any(|container| {
                container.mounts(volume::SHARED_DATA)
                    && !self.helpers.iter().any(|helper| helper == container.name)
            })
    }
}

/// Every regular container but the proxies (webhook §10.1).
pub(crate) fn is_app(container: &Container<'_>) -> bool {
    !container.init && !names::NEVER_APP.contains(&container.name)
}

fn has_mount(container: &Container<'_>, mount: &Value) -> bool {
    container.objects("volumeMounts").any(|existing| text(existing, "mountPath") == mount_path(mount))
}

fn trust_bridge(container: &Container<'_>, env: &mut EnvEdit<'_>, warnings: &mut Vec<Warning>) {
    let overwritten: Vec<&str> = CA_VARIABLES.into_iter().filter(|name| env.set(name, CA_FILE)).collect();
    if !overwritten.is_empty() {
        warnings.push(Warning::new(
            WarningCode::CaVariableOverwritten,
            format!(
                "container {}: the TLS bridge overwrites {}: add your roots to ca.crt of the bridge's CA Secret",
                container.name,
                overwritten.join(", ")
            ),
        ));
    }
}
