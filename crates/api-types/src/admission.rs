//! Admission rules of group agent.kagenti.dev (runtime §9.1, card §17.1). The server looks duplicates up, here
//! is what follows from them.

use crate::{
    AgentCard, AgentCardSpec, AgentRuntime, AgentRuntimeSpec, AuthBridgeMode, TargetRef, TlsBridgeMode,
    enrolment::TargetKind, go_duration,
};

/// Answer of a validator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Admit the object.
    Allow {
        /// Shown to the user.
        warnings: Vec<String>,
    },
    /// Refuse it.
    Deny {
        /// Names the object, the field and the remedy.
        message: String,
    },
}

/// Another object with the same target, not being deleted, confirmed by the caller (README decision 27).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicate<'a> {
    /// Name of the other object.
    pub name: &'a str,
}

/// Must an AgentRuntime be judged at all? Not when it is being deleted or its spec did not change.
pub fn runtime_needs_review(new: &AgentRuntime, old: Option<&AgentRuntime>) -> bool {
    new.metadata.deletion_timestamp.is_none() && old.is_none_or(|old| old.spec != new.spec)
}

/// Must an AgentCard be judged at all? Not when it is being deleted or its spec did not change, so that a legacy
/// card without target can lose its finalizer.
pub fn card_needs_review(new: &AgentCard, old: Option<&AgentCard>) -> bool {
    new.metadata.deletion_timestamp.is_none() && old.is_none_or(|old| old.spec != new.spec)
}

/// Judges the spec of an AgentRuntime (runtime §9.1).
pub fn judge_runtime(namespace: &str, spec: &AgentRuntimeSpec, duplicate: Option<Duplicate<'_>>) -> Verdict {
    if let Some(other) = duplicate {
        return already_targets("AgentRuntime", namespace, &spec.target_ref, other);
    }
    let mode = spec.auth_bridge_mode.as_ref();
    if spec.tls_bridge_mode == Some(TlsBridgeMode::Enabled)
        && let Some(mode @ (AuthBridgeMode::EnvoySidecar | AuthBridgeMode::Waypoint)) = mode
    {
        return Verdict::Deny {
            message: format!(
                "tlsBridgeMode=enabled requires authBridgeMode proxy-sidecar or lite, but spec.authBridgeMode is \
                 {mode}: change it, or set spec.tlsBridgeMode to disabled"
            ),
        };
    }
    Verdict::Allow { warnings: unsupported_kind(&spec.target_ref).into_iter().collect() }
}

/// What of the cluster an AgentCard's review depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct CardReview {
    /// A trust mechanism (signature, verified fetch, trust bundle) is known; `None` = not known here.
    pub trust_mechanism: Option<bool>,
}

/// Judges the spec of an AgentCard (card §17.1).
pub fn judge_card(
    namespace: &str,
    spec: &AgentCardSpec,
    duplicate: Option<Duplicate<'_>>,
    review: CardReview,
) -> Verdict {
    let Some(target) = &spec.target_ref else {
        return Verdict::Deny {
            message: "spec.targetRef is required: name the workload with apiVersion, kind and name".into(),
        };
    };
    if let Some(other) = duplicate {
        return already_targets("AgentCard", namespace, target, other);
    }
    let mut warnings: Vec<String> = unsupported_kind(target).into_iter().collect();
    if let Some(problem) = go_duration::sync_period(spec.sync_period.as_deref()).problem {
        warnings.push(format!("spec.syncPeriod: {problem}"));
    }
    let strict = spec.identity_binding.as_ref().is_some_and(|binding| binding.strict);
    if strict && review.trust_mechanism == Some(false) {
        warnings.push(
            "spec.identityBinding.strict is true, but no trust mechanism is configured: the card cannot become \
             verified"
                .into(),
        );
    }
    Verdict::Allow { warnings }
}

fn already_targets(kind: &str, namespace: &str, target: &TargetRef, other: Duplicate<'_>) -> Verdict {
    Verdict::Deny {
        message: format!(
            "an {kind} already targets {} {} in namespace {namespace}: {}",
            target.kind, target.name, other.name
        ),
    }
}

fn unsupported_kind(target: &TargetRef) -> Option<String> {
    let kinds = || TargetKind::ALL.map(TargetKind::as_str).join(", ");
    match target.group() {
        None => Some(format!(
            "spec.targetRef.apiVersion {:?} cannot be parsed: write group/version, for example apps/v1",
            target.api_version
        )),
        Some(group) if TargetKind::of(group, &target.kind).is_none() => Some(format!(
            "spec.targetRef: {} of group {group:?} cannot be enrolled; supported kinds are {}",
            target.kind,
            kinds()
        )),
        Some(_) => None,
    }
}
