//! What is settled before the first operation is written: the decision and the ports of one Pod.

use api_types::{
    injection::{Decision, Layout, Mode},
    platform::{NativeSidecar, PlatformConfig},
};

use super::{
    Deny, DenyReason, Inputs, Warning, WarningCode, names,
    names::volume,
    pod::{Container, text},
    ports::{self, PortPlan, Shape},
};
use crate::render::helper_conf;

/// Mesh containers that run with the very UID this product uses by default; they are no user containers.
const MESH: [&str; 5] = ["istio-proxy", "istio-init", "istio-validation", "linkerd-proxy", "linkerd-init"];

/// One Pod to inject.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// What it was decided on.
    pub(crate) inputs: &'a Inputs<'a>,
    /// The shared decision.
    pub(crate) decision: &'a Decision,
    /// The ports; all zero for a Pod without proxy.
    pub(crate) ports: PortPlan,
}

impl<'a> Plan<'a> {
    /// Checks rows 13 and 14 of webhook §5 and plans the ports.
    pub(crate) fn new(inputs: &'a Inputs<'a>, decision: &'a Decision) -> Result<Self, Deny> {
        let mut plan = Self { inputs, decision, ports: PortPlan::default() };
        if plan.proxy_init_applies() {
            plan.check_user_ids()?;
        }
        if decision.proxy {
            plan.ports = plan.port_plan()?;
        }
        Ok(plan)
    }

    /// Platform configuration.
    pub(crate) fn platform(&self) -> &'a PlatformConfig {
        self.inputs.cluster.platform
    }

    /// Layout `split`.
    pub(crate) fn split(&self) -> bool {
        self.decision.layout.value == Layout::Split
    }

    /// The Envoy sidecar is injected.
    pub(crate) fn envoy(&self) -> bool {
        self.decision.proxy && self.decision.mode.value == Mode::EnvoySidecar
    }

    /// The AuthBridge proxy (proxy-sidecar or lite) is injected.
    pub(crate) fn http_proxy(&self) -> bool {
        self.decision.proxy && self.decision.mode.value.is_proxy()
    }

    /// The volume with the proxy's SVID files: in layout split its own, so that no two processes write one file.
    pub(crate) fn proxy_svid_volume(&self) -> &'static str {
        if self.split() { volume::AUTHBRIDGE_SVID } else { volume::SVID_OUTPUT }
    }

    /// The namespace brings a `helper.conf` of its own.
    pub(crate) fn namespace_helper_conf(&self) -> Option<&'a str> {
        self.inputs.helper_conf.filter(|text| !text.trim().is_empty())
    }

    /// Sidecars become init containers that keep running (webhook §10.4).
    pub(crate) fn native(&self, warnings: &mut Vec<Warning>) -> bool {
        let completes = matches!(text(self.inputs.pod.spec(), "restartPolicy"), "Never" | "OnFailure");
        let wanted = match self.platform().sidecar.native {
            NativeSidecar::Never => false,
            NativeSidecar::Auto => completes,
            NativeSidecar::Always => true,
        };
        if wanted && !self.inputs.native_sidecars {
            warnings.push(Warning::new(
                WarningCode::NativeSidecarUnavailable,
                "the cluster is older than Kubernetes 1.29: the sidecar is a regular container, so a Pod that runs to completion does not end by itself",
            ));
        }
        wanted && self.inputs.native_sidecars
    }

    fn proxy_init_applies(&self) -> bool {
        self.decision.proxy_init
    }

    /// Row 13: traffic of that UID is exempt from capture.
    fn check_user_ids(&self) -> Result<(), Deny> {
        let uid = self.platform().proxy.uid;
        let runs_as =
            |value: Option<&serde_json::Value>| value.and_then(serde_json::Value::as_i64) == Some(uid);
        let refuse = |field: &str| Deny {
            code: 403,
            reason: DenyReason::ProxyUid,
            message: format!(
                "{field} is {uid}, the UID of the AuthBridge sidecar, whose traffic is not captured: choose another UID"
            ),
        };
        let pod = self.inputs.pod;
        if runs_as(pod.security("runAsUser")) {
            return Err(refuse("spec.securityContext.runAsUser"));
        }
        let user = |container: &&Container<'_>| !MESH.contains(&container.name);
        match pod.all_containers().filter(user).find(|container| runs_as(container.security("runAsUser"))) {
            Some(container) => {
                Err(refuse(&format!("securityContext.runAsUser of container {}", container.name)))
            }
            None => Ok(()),
        }
    }

    /// Row 14.
    fn port_plan(&self) -> Result<PortPlan, Deny> {
        let helper_health =
            self.namespace_helper_conf().filter(|_| self.decision.helper).and_then(helper_conf::health_port);
        let shape = Shape {
            mode: self.decision.mode.value,
            inbound: self.decision.inbound.value,
            layout: self.decision.layout.value,
            helper_health,
        };
        ports::plan(self.inputs.pod, shape, &self.platform().proxy).map_err(|clash| Deny {
            code: 403,
            reason: DenyReason::PortClash,
            message: clash.to_string(),
        })
    }
}

/// Things about the Pod that weaken the sidecar without preventing it (webhook §5, §16).
pub(crate) fn weaknesses(plan: &Plan<'_>, warnings: &mut Vec<Warning>) {
    if !plan.decision.proxy_init {
        return;
    }
    let pod = plan.inputs.pod;
    let powerful: Vec<&str> = pod
        .all_containers()
        .filter(|container| !MESH.contains(&container.name) && is_powerful(container))
        .map(|container| container.name)
        .collect();
    if !powerful.is_empty() || pod.spec_flag("shareProcessNamespace") {
        let mut causes = Vec::new();
        if !powerful.is_empty() {
            causes.push(format!("privileged or NET_ADMIN containers {}", powerful.join(", ")));
        }
        if pod.spec_flag("shareProcessNamespace") {
            causes.push("spec.shareProcessNamespace".to_owned());
        }
        warnings.push(Warning::new(
            WarningCode::CaptureCanBeUndone,
            format!("the capture of traffic can be undone from inside the Pod: {}", causes.join("; ")),
        ));
    }
    let level = plan
        .inputs
        .namespace
        .labels
        .and_then(|labels| labels.get(api_types::names::label::POD_SECURITY_ENFORCE))
        .map(String::as_str);
    if let Some(level @ ("baseline" | "restricted")) = level {
        warnings.push(Warning::new(
            WarningCode::PodSecurity,
            format!(
                "namespace label pod-security.kubernetes.io/enforce: {level} refuses init container {} (NET_ADMIN, root): use privileged, or egressEnforcement none with a proxy mode",
                names::PROXY_INIT
            ),
        ));
    }
}

fn is_powerful(container: &Container<'_>) -> bool {
    let added = container.security("capabilities").and_then(|capabilities| capabilities.get("add"));
    let adds = |name: &str| {
        added
            .and_then(serde_json::Value::as_array)
            .is_some_and(|list| list.iter().filter_map(serde_json::Value::as_str).any(|added| added == name))
    };
    container.security("privileged").and_then(serde_json::Value::as_bool) == Some(true)
        || adds("NET_ADMIN")
        || adds("CAP_NET_ADMIN")
        || adds("ALL")
}
