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

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;
    use rstest::rstest;

    use super::*;
    use crate::{IdentityBinding, WorkloadType};

    fn target(api_version: &str, kind: &str) -> TargetRef {
        TargetRef { api_version: api_version.into(), kind: kind.into(), name: "weather".into() }
    }

    fn runtime_spec() -> AgentRuntimeSpec {
        AgentRuntimeSpec {
            workload_type: WorkloadType::Agent,
            target_ref: target("apps/v1", "Deployment"),
            identity: None,
            auth_bridge_mode: None,
            mtls_mode: None,
            tls_bridge_mode: None,
            inbound_interception: None,
            egress_enforcement: None,
        }
    }

    fn denied(verdict: &Verdict) -> Option<&str> {
        match verdict {
            Verdict::Deny { message } => Some(message),
            Verdict::Allow { .. } => None,
        }
    }

    fn warnings(verdict: Verdict) -> Vec<String> {
        match verdict {
            Verdict::Allow { warnings } => warnings,
            Verdict::Deny { message } => panic!("denied: {message}"),
        }
    }

    /// The texts that users' scripts match (runtime §9.1, card §17.1).
    #[test]
    fn duplicates_are_denied_with_the_known_text() {
        let other = Some(Duplicate { name: "first" });
        assert_eq!(
            denied(&judge_runtime("team1", &runtime_spec(), other)),
            Some("an AgentRuntime already targets Deployment weather in namespace team1: first")
        );
        let card =
            AgentCardSpec { target_ref: Some(target("apps/v1", "Deployment")), ..AgentCardSpec::default() };
        assert_eq!(
            denied(&judge_card("team1", &card, other, CardReview::default())),
            Some("an AgentCard already targets Deployment weather in namespace team1: first")
        );
    }

    /// Runtime §9.1 and scenario 16.
    #[rstest]
    #[case(None, true)]
    #[case(Some("proxy-sidecar"), true)]
    #[case(Some("lite"), true)]
    #[case(Some("envoy-sidecar"), false)]
    #[case(Some("waypoint"), false)]
    fn tls_bridge_needs_a_proxy_mode(#[case] mode: Option<&str>, #[case] allowed: bool) {
        let mut spec = runtime_spec();
        spec.auth_bridge_mode = mode.map(Into::into);
        assert_eq!(judge_runtime("team1", &spec, None), Verdict::Allow { warnings: vec![] });
        spec.tls_bridge_mode = Some(TlsBridgeMode::Enabled);
        let verdict = judge_runtime("team1", &spec, None);
        assert_eq!(denied(&verdict).is_none(), allowed);
        if let Some(message) = denied(&verdict) {
            assert!(
                message.starts_with("tlsBridgeMode=enabled requires authBridgeMode proxy-sidecar or lite"),
                "{message}"
            );
        }
    }

    #[test]
    fn every_mtls_mode_goes_with_every_sidecar() {
        for mode in crate::AuthBridgeMode::KNOWN {
            for mtls in crate::MtlsMode::KNOWN {
                let mut spec = runtime_spec();
                spec.auth_bridge_mode = Some((*mode).into());
                spec.mtls_mode = Some((*mtls).into());
                assert_eq!(judge_runtime("team1", &spec, None), Verdict::Allow { warnings: vec![] });
            }
        }
    }

    #[rstest]
    #[case("apps/v1", "DaemonSet", true)]
    #[case("a/b/c", "Deployment", true)]
    #[case("apps/v1beta2", "StatefulSet", false)]
    #[case("agents.x-k8s.io/v1beta1", "Sandbox", false)]
    fn unsupported_kinds_warn(#[case] api_version: &str, #[case] kind: &str, #[case] warned: bool) {
        let mut spec = runtime_spec();
        spec.target_ref = target(api_version, kind);
        assert_eq!(warnings(judge_runtime("team1", &spec, None)).len(), usize::from(warned));
        let card = AgentCardSpec { target_ref: Some(spec.target_ref), ..AgentCardSpec::default() };
        assert_eq!(
            warnings(judge_card("team1", &card, None, CardReview::default())).len(),
            usize::from(warned)
        );
    }

    #[test]
    fn a_card_needs_a_target() {
        let verdict = judge_card("team1", &AgentCardSpec::default(), None, CardReview::default());
        assert!(denied(&verdict).is_some_and(|message| message.contains("spec.targetRef is required")));
    }

    #[rstest]
    #[case(Some("1m"), false, 0)]
    #[case(Some("x"), false, 1)]
    #[case(Some("1ms"), false, 1)]
    #[case(None, true, 1)]
    #[case(Some("x"), true, 2)]
    fn card_warnings(#[case] period: Option<&str>, #[case] strict: bool, #[case] count: usize) {
        let card = AgentCardSpec {
            target_ref: Some(target("apps/v1", "Deployment")),
            sync_period: period.map(Into::into),
            identity_binding: Some(IdentityBinding { strict, ..IdentityBinding::default() }),
            ..AgentCardSpec::default()
        };
        let review = |trust_mechanism| judge_card("team1", &card, None, CardReview { trust_mechanism });
        assert_eq!(warnings(review(Some(false))).len(), count);
        let without_strict = count - usize::from(strict);
        assert_eq!(warnings(review(Some(true))).len(), without_strict);
        assert_eq!(warnings(review(None)).len(), without_strict);
    }

    /// Metadata-only updates and deletions are not judged (runtime §9.1, card §17.1).
    #[test]
    fn only_spec_changes_are_reviewed() {
        let new = AgentRuntime::new("rt", runtime_spec());
        assert!(runtime_needs_review(&new, None));
        let mut labelled = new.clone();
        labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        assert!(!runtime_needs_review(&labelled, Some(&new)));
        let mut changed = new.clone();
        changed.spec.workload_type = WorkloadType::Tool;
        assert!(runtime_needs_review(&changed, Some(&new)));
        changed.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert!(!runtime_needs_review(&changed, Some(&new)));

        let card =
            AgentCard { metadata: ObjectMeta::default(), spec: AgentCardSpec::default(), status: None };
        assert!(card_needs_review(&card, None));
        assert!(
            !card_needs_review(&card, Some(&card)),
            "a legacy card without target can lose its finalizer"
        );
    }
}
