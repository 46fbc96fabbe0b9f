//! Events about an AgentRuntime: one per transition (runtime §7.3).

use api_types::{
    AgentRuntime, AgentRuntimeStatus,
    names::{condition, reason},
};
use controller_kit::events::{NewEvent, reference};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt;

use crate::{
    context::Context,
    status::{Report, Truth, turned},
    withdraw::Withdrawal,
    workload::Workload,
};

fn about(runtime: &AgentRuntime) -> ObjectReference {
    reference(runtime)
}

/// The events of a status that was just written: for every condition whose status or reason differs from before, and
/// `Configured` also when another hash was written.
pub fn transitions(
    ctx: &Context,
    runtime: &AgentRuntime,
    before: Option<&AgentRuntimeStatus>,
    after: &AgentRuntimeStatus,
    report: &Report,
    hash_written: bool,
) {
    for event in transition_events(runtime, before, after, report, hash_written) {
        ctx.events.publish(&about(runtime), event);
    }
}

/// Pure.
fn transition_events(
    runtime: &AgentRuntime,
    before: Option<&AgentRuntimeStatus>,
    after: &AgentRuntimeStatus,
    report: &Report,
    hash_written: bool,
) -> Vec<NewEvent> {
    let mut events = Vec::new();
    for type_ in crate::status::OWNED {
        let Some(verdict) = report.get(type_) else { continue };
        let turned = turned(before, after, type_);
        let message = verdict.message.as_str();
        match (type_, verdict.reason) {
            (condition::READY, reason::CONFIGURED) if turned || hash_written => {
                let target = &runtime.spec.target_ref;
                let note = format!("Applied config to {} {}", target.kind, target.name);
                events.push(NewEvent::normal(reason::CONFIGURED, "ApplyConfig", note));
            }
            _ if !turned => {}
            (condition::TARGET_RESOLVED, reason) if verdict.truth == Truth::False => {
                events.push(NewEvent::warning(reason, "ResolveTarget", message));
            }
            (condition::ISTIO_MESH_ENROLLED, reason::NAMESPACE_LABELED) => {
                let namespace = runtime.namespace().unwrap_or_default();
                let note = format!("Namespace {namespace} labeled for Istio ambient mesh");
                events.push(NewEvent::normal(reason::ISTIO_MESH_ENROLLED, "EnsureIstioMesh", note));
            }
            (condition::ISTIO_MESH_ENROLLED, reason::PATCH_FAILED) => {
                events.push(NewEvent::warning(reason::ISTIO_MESH_LABEL_ERROR, "EnsureIstioMesh", message));
            }
            (condition::MTLS_READY, reason::SPIRE_UNAVAILABLE) => {
                events.push(NewEvent::warning(reason::SPIRE_UNAVAILABLE, "CheckMTLS", message));
            }
            (condition::READY, reason::DUPLICATE_TARGET) => {
                events.push(NewEvent::warning(reason::DUPLICATE_TARGET, "ResolveTarget", message));
            }
            (condition::READY, reason::SCC_BINDING_ERROR) => {
                events.push(NewEvent::warning(reason::SCC_BINDING_ERROR, "EnsureSCCBinding", message));
            }
            _ => {}
        }
    }
    events
}

/// One event per warning, when condition ConfigResolved turned to ConfigWarning.
pub fn config_warnings<'a>(ctx: &Context, runtime: &AgentRuntime, warnings: impl Iterator<Item = &'a str>) {
    for warning in warnings {
        ctx.events
            .publish(&about(runtime), NewEvent::warning(reason::CONFIG_WARNING, "ResolveConfig", warning));
    }
}

/// A template could not be copied.
pub fn bootstrap_failure(ctx: &Context, runtime: &AgentRuntime, message: String) {
    let event = NewEvent::warning(reason::CONFIG_MAP_ENSURE_ERROR, "EnsureConfigMaps", message);
    ctx.events.publish(&about(runtime), event);
}

/// The skills annotation does not parse.
pub fn bad_skills(ctx: &Context, runtime: &AgentRuntime, message: String) {
    let event = NewEvent::warning(reason::SKILL_ANNOTATION_PARSE_ERROR, "ReadLinkedSkills", message);
    ctx.events.publish(&about(runtime), event);
}

/// Phase 2 of a restart is done.
pub fn sandbox_restarted(ctx: &Context, runtime: &AgentRuntime, workload: &Workload) {
    let note = format!("Sandbox {} restarted via scale 0→1", workload.key.name);
    ctx.events.publish(&about(runtime), NewEvent::normal(reason::SANDBOX_RESTARTED, "RestartSandbox", note));
}

/// An enrolment ended.
pub fn unenrolled(ctx: &Context, runtime: &AgentRuntime, workload: &Workload, withdrawal: &Withdrawal) {
    let key = &workload.key;
    let (kind, name) = (key.kind.as_str(), &key.name);
    if withdrawal.selector_needs_label {
        let note = format!(
            "spec.selector of {kind} {name} needs the label kagenti.io/type, so it stays on the pod template; injection \
             is switched off with kagenti.io/inject: disabled"
        );
        let event = NewEvent::warning(reason::SELECTOR_REQUIRES_TYPE_LABEL, "Unenroll", note);
        ctx.events.publish(&about(runtime), event);
    }
    let note = format!("Ended the enrolment of {kind} {name}");
    ctx.events.publish(&about(runtime), NewEvent::normal(reason::UNENROLLED, "Unenroll", note));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Verdict, next};
    use serde_json::json;

    fn runtime() -> AgentRuntime {
        serde_json::from_value(json!({
            "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentRuntime",
            "metadata": {"namespace": "ns", "name": "rt"},
            "spec": {"type": "agent", "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"}},
        }))
        .unwrap()
    }

    fn reasons(before: Option<&AgentRuntimeStatus>, report: &Report, hash_written: bool) -> Vec<String> {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let after = next(before, report, 1, &[], now).unwrap_or_else(|| before.cloned().unwrap());
        let events = transition_events(&runtime(), before, &after, report, hash_written);
        events.into_iter().map(|event| event.reason.into_owned()).collect()
    }

    /// Runtime §7.3: an event only when status or reason changed; Configured also when the hash did.
    #[test]
    fn one_event_per_transition() {
        let mut report = Report::default();
        report.set(condition::READY, Verdict::yes(reason::CONFIGURED, "done"));
        report.set(condition::ISTIO_MESH_ENROLLED, Verdict::yes(reason::NAMESPACE_LABELED, "in"));
        report.set(condition::MTLS_READY, Verdict::yes(reason::MTLS_DISABLED, "off"));
        assert_eq!(reasons(None, &report, true), ["IstioMeshEnrolled", "Configured"]);
        let first = next(None, &report, 1, &[], jiff::Timestamp::UNIX_EPOCH).unwrap();
        assert!(reasons(Some(&first), &report, false).is_empty());
        assert_eq!(reasons(Some(&first), &report, true), ["Configured"]);
        report.set(condition::MTLS_READY, Verdict::no(reason::SPIRE_UNAVAILABLE, "none"));
        assert_eq!(reasons(Some(&first), &report, false), ["SPIREUnavailable"]);
    }

    #[test]
    fn a_missing_target_is_one_event() {
        let mut report = Report::default();
        report.set(condition::TARGET_RESOLVED, Verdict::no(reason::TARGET_NOT_FOUND, "gone"));
        report.set(condition::READY, Verdict::no(reason::TARGET_NOT_FOUND, "gone"));
        assert_eq!(reasons(None, &report, false), ["TargetNotFound"]);
    }
}
