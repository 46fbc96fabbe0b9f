//! Webhook §8: every table and the points after them.

use rstest::rstest;

use super::*;

fn cr_of(setting: &'static str, value: &'static str) -> impl FnOnce(&mut AgentRuntimeSpec) {
    move |spec| match setting {
        "mode" => spec.auth_bridge_mode = Some(value.into()),
        "mtls" => spec.mtls_mode = Some(value.into()),
        "egress" => spec.egress_enforcement = Some(value.into()),
        "tls" => spec.tls_bridge_mode = Some(value.into()),
        _ => spec.inbound_interception = Some(value.into()),
    }
}

#[rstest]
#[case::default("", None, None, Mode::ProxySidecar, Source::ClusterDefault)]
#[case::annotation("", None, Some("lite"), Mode::Lite, Source::Annotation)]
#[case::namespace("mode: envoy-sidecar", None, Some("lite"), Mode::EnvoySidecar, Source::Namespace)]
#[case::cr("mode: envoy-sidecar", Some("lite"), None, Mode::Lite, Source::AgentRuntime)]
#[case::empty_cr("mode: envoy-sidecar", Some(""), None, Mode::EnvoySidecar, Source::Namespace)]
#[case::empty_namespace("mode: ''", None, Some("lite"), Mode::Lite, Source::Annotation)]
#[case::invalid_cr("mode: lite", Some("envoy"), None, Mode::ProxySidecar, Source::ClusterDefaultInvalid)]
#[case::invalid_namespace("mode: 3", None, Some("lite"), Mode::ProxySidecar, Source::ClusterDefaultInvalid)]
#[case::invalid_annotation("", None, Some("Lite"), Mode::ProxySidecar, Source::ClusterDefaultInvalid)]
fn mode(
    #[case] namespace: &str,
    #[case] cr: Option<&'static str>,
    #[case] annotation: Option<&str>,
    #[case] value: Mode,
    #[case] source: Source,
) {
    let mut world = World::new().config(namespace);
    if let Some(cr) = cr {
        world = world.cr(cr_of("mode", cr));
    }
    if let Some(annotation) = annotation {
        world = world.annotation("kagenti.io/authbridge-mode", annotation);
    }
    let decision = world.decide();
    assert_eq!(decision.mode, Resolved { value, source });
    let expected = match source {
        Source::Annotation => vec![WarningCode::DeprecatedModeAnnotation],
        Source::ClusterDefaultInvalid => vec![WarningCode::InvalidMode],
        _ => vec![],
    };
    assert_eq!(codes(&decision), expected);
}

/// mTLS with SPIRE: CR, then namespace, then `permissive`; scenario 10 of the runtime chapter.
#[rstest]
#[case::default("", None, Mtls::Permissive, Source::BuiltIn)]
#[case::namespace("mtls: {mode: strict}", None, Mtls::Strict, Source::Namespace)]
#[case::cr("mtls: {mode: strict}", Some("disabled"), Mtls::Disabled, Source::AgentRuntime)]
#[case::invalid("mtls: {mode: strikt}", None, Mtls::Permissive, Source::BuiltInInvalid)]
#[case::not_a_map("mtls: strict", None, Mtls::Permissive, Source::BuiltIn)]
#[case::off("mtls: {mode: off}", None, Mtls::Permissive, Source::BuiltInInvalid)]
fn mtls_with_spire(
    #[case] namespace: &str,
    #[case] cr: Option<&'static str>,
    #[case] value: Mtls,
    #[case] source: Source,
) {
    let mut world = World::new().config(namespace);
    if let Some(cr) = cr {
        world = world.cr(cr_of("mtls", cr));
    }
    let decision = world.decide();
    assert_eq!(decision.mtls, Resolved { value, source });
    assert_eq!(decision.mtls_wanted, decision.mtls);
    assert!(decision.spire, "SPIRE follows the pod's sign, whatever the mode");
    assert!(!decision.lacks_spire());
    let invalid = source == Source::BuiltInInvalid;
    assert_eq!(codes(&decision), if invalid { vec![WarningCode::InvalidMtls] } else { vec![] });
}

/// Webhook §8: the opt-out label wins over the default, not over an explicit mode. Scenario 24.
#[rstest]
#[case::default("kagenti.io/spiffe-helper-inject", "false", None, Mtls::Disabled, Source::SpireOptOut, false)]
#[case::older_label("kagenti.io/spire", "disabled", None, Mtls::Disabled, Source::SpireOptOut, false)]
#[case::explicit(
    "kagenti.io/spiffe-helper-inject",
    "false",
    Some("permissive"),
    Mtls::Permissive,
    Source::AgentRuntime,
    true
)]
#[case::strict(
    "kagenti.io/spiffe-helper-inject",
    "false",
    Some("strict"),
    Mtls::Strict,
    Source::AgentRuntime,
    true
)]
#[case::disabled(
    "kagenti.io/spiffe-helper-inject",
    "false",
    Some("disabled"),
    Mtls::Disabled,
    Source::AgentRuntime,
    false
)]
#[case::invalid(
    "kagenti.io/spiffe-helper-inject",
    "false",
    Some("x"),
    Mtls::Permissive,
    Source::BuiltInInvalid,
    true
)]
#[case::other_value("kagenti.io/spiffe-helper-inject", "no", None, Mtls::Permissive, Source::BuiltIn, true)]
fn mtls_with_the_opt_out_label(
    #[case] label: &str,
    #[case] text: &str,
    #[case] cr: Option<&'static str>,
    #[case] value: Mtls,
    #[case] source: Source,
    #[case] spire: bool,
) {
    let mut world = World::new().label(label, text);
    if let Some(cr) = cr {
        world = world.cr(cr_of("mtls", cr));
    }
    let decision = world.decide();
    assert_eq!(decision.outcome, Outcome::Inject);
    assert_eq!((decision.mtls, decision.spire), (Resolved { value, source }, spire));
    let account = if spire { "weather" } else { "default" };
    assert_eq!(decision.service_account, account, "the ServiceAccount follows SPIRE");
}

/// Webhook §8 and README decision 1b: SPIRE is not to be had. Scenario 25.
#[rstest]
#[case::default(None, "", Mtls::Disabled, Source::SpireUnavailable, false, false)]
#[case::disabled(Some("disabled"), "", Mtls::Disabled, Source::AgentRuntime, false, false)]
#[case::permissive(Some("permissive"), "", Mtls::Disabled, Source::SpireUnavailable, true, true)]
#[case::namespace(None, "mtls: {mode: permissive}", Mtls::Disabled, Source::SpireUnavailable, true, true)]
#[case::invalid(Some("x"), "", Mtls::Disabled, Source::SpireUnavailable, true, true)]
fn mtls_without_spire(
    #[case] cr: Option<&'static str>,
    #[case] namespace: &str,
    #[case] value: Mtls,
    #[case] source: Source,
    #[case] warned: bool,
    #[case] lacks_spire: bool,
) {
    for world in [World::new().no_spire(), World::new().platform("spiffe: {enabled: never}")] {
        let mut world = world.config(namespace);
        if let Some(cr) = cr {
            world = world.cr(cr_of("mtls", cr));
        }
        let decision = world.decide();
        assert_eq!(decision.outcome, Outcome::Inject);
        assert_eq!(decision.mtls, Resolved { value, source });
        assert!(!decision.spire);
        assert_eq!(codes(&decision).contains(&WarningCode::SpireUnavailable), warned);
        assert_eq!(decision.lacks_spire(), lacks_spire);
        assert_eq!(decision.service_account, "default");
    }
}

#[test]
fn explicit_strict_without_spire_is_denied_with_the_remedy() {
    let worlds = [
        World::new().no_spire().cr(cr_of("mtls", "strict")),
        World::new().no_spire().config("mtls: {mode: strict}"),
        World::new().platform("spiffe: {enabled: never}").cr(cr_of("mtls", "strict")),
    ];
    for world in worlds {
        let decision = world.decide();
        let Outcome::Deny(denial) = &decision.outcome else { panic!("denied") };
        assert_eq!(denial.reason, DenyReason::StrictWithoutSpire);
        assert!(
            denial.message.contains("SPIRE") && denial.message.contains("mtlsMode"),
            "{}",
            denial.message
        );
        assert!(decision.lacks_spire());
    }
    let decision =
        World::new().no_spire().platform("spiffe: {enabled: always}").cr(cr_of("mtls", "strict")).decide();
    assert_eq!((decision.outcome, decision.spire), (Outcome::Inject, true));
}

#[rstest]
#[case::default("", None, "", Egress::EnforceRedirect, Source::ClusterDefault, &[])]
#[case::namespace("egressEnforcement: none", None, "", Egress::None, Source::Namespace, &[])]
#[case::cr("egressEnforcement: none", Some("enforce-redirect"), "", Egress::EnforceRedirect, Source::AgentRuntime, &[])]
#[case::invalid("egressEnforcement: open", None, "", Egress::EnforceRedirect, Source::BuiltInInvalid, &[WarningCode::InvalidEgress])]
#[case::not_allowed("", Some("none"), "[enforce-redirect]", Egress::EnforceRedirect, Source::PlatformPolicy, &[WarningCode::EgressPolicyOverride])]
#[case::default_not_allowed("", None, "[none]", Egress::None, Source::PlatformPolicy, &[WarningCode::EgressPolicyOverride])]
#[case::invalid_and_not_allowed("", Some("x"), "[none]", Egress::None, Source::PlatformPolicy, &[WarningCode::InvalidEgress, WarningCode::EgressPolicyOverride])]
fn egress(
    #[case] namespace: &str,
    #[case] cr: Option<&'static str>,
    #[case] allowed: &str,
    #[case] value: Egress,
    #[case] source: Source,
    #[case] warnings: &[WarningCode],
) {
    let mut world = World::new().config(namespace);
    if !allowed.is_empty() {
        world = world.platform(&format!("proxy: {{allowedEgressEnforcement: {allowed}}}"));
    }
    if let Some(cr) = cr {
        world = world.cr(cr_of("egress", cr));
    }
    let decision = world.decide();
    assert_eq!(decision.egress, Resolved { value, source });
    assert_eq!(codes(&decision), warnings);
    assert_eq!(decision.proxy_init, value == Egress::EnforceRedirect);
}

#[test]
fn envoy_ignores_egress_without_a_word() {
    let decision = World::new().config("mode: envoy-sidecar\negressEnforcement: open").decide();
    assert_eq!(codes(&decision), []);
    assert!(decision.proxy && decision.proxy_init);
}

#[rstest]
#[case::default("", None, false, Source::BuiltIn, &[])]
#[case::cr("", Some("enabled"), true, Source::AgentRuntime, &[])]
#[case::cr_off("tls_bridge: {mode: enabled}", Some("disabled"), false, Source::AgentRuntime, &[])]
#[case::namespace_with_cr("tls_bridge: {mode: enabled}", Some(""), true, Source::Namespace, &[])]
#[case::namespace_without_cr("tls_bridge: {mode: enabled}", None, false, Source::NotApplicable, &[WarningCode::TlsBridgeWithoutRuntime])]
#[case::envoy("mode: envoy-sidecar", Some("enabled"), false, Source::NotApplicable, &[WarningCode::TlsBridgeNeedsProxyMode])]
#[case::invalid("tls_bridge: {mode: on}", Some(""), false, Source::BuiltInInvalid, &[WarningCode::InvalidTlsBridge])]
fn tls_bridge(
    #[case] namespace: &str,
    #[case] cr: Option<&'static str>,
    #[case] value: bool,
    #[case] source: Source,
    #[case] warnings: &[WarningCode],
) {
    let mut world = World::new().config(namespace);
    if let Some(cr) = cr {
        world = world.cr(cr_of("tls", cr));
    }
    let decision = world.decide();
    assert_eq!(decision.tls_bridge, Resolved { value, source });
    assert_eq!(codes(&decision), warnings);
}

#[rstest]
#[case::default("", Inbound::ReverseProxy, Source::BuiltIn, &[])]
#[case::namespace("listener: {inbound_interception: transparent}", Inbound::Transparent, Source::Namespace, &[])]
#[case::lite("mode: lite\nlistener: {inbound_interception: transparent}", Inbound::Transparent, Source::Namespace, &[])]
#[case::envoy("mode: envoy-sidecar\nlistener: {inbound_interception: transparent}", Inbound::ReverseProxy, Source::NotApplicable, &[WarningCode::InboundNeedsRedirect])]
#[case::no_redirect("egressEnforcement: none\nlistener: {inbound_interception: transparent}", Inbound::ReverseProxy, Source::NotApplicable, &[WarningCode::InboundNeedsRedirect])]
#[case::invalid("listener: {inbound_interception: x}", Inbound::ReverseProxy, Source::BuiltInInvalid, &[WarningCode::InvalidInbound])]
fn inbound(
    #[case] namespace: &str,
    #[case] value: Inbound,
    #[case] source: Source,
    #[case] warnings: &[WarningCode],
) {
    let decision = World::new().config(namespace).decide();
    assert_eq!(decision.inbound, Resolved { value, source });
    assert_eq!(codes(&decision), warnings);
}

#[test]
fn inbound_of_the_cr_beats_the_namespace() {
    let decision = World::new()
        .config("listener: {inbound_interception: transparent}")
        .cr(cr_of("inbound", "reverse-proxy"))
        .decide();
    assert_eq!(decision.inbound, Resolved { value: Inbound::ReverseProxy, source: Source::AgentRuntime });
}

/// The source texts of webhook §8 are wire facts.
#[test]
fn source_texts() {
    let texts: Vec<&str> = Source::ALL.iter().map(|source| source.as_str()).collect();
    for text in [
        "agentruntime-cr",
        "namespace-configmap",
        "annotation-deprecated",
        "cluster-default",
        "cluster-default-invalid-fallback",
        "default",
        "default-invalid-fallback",
        "platform-policy-override",
        "spire-opt-out",
        "platform-config",
        "no-proxy",
    ] {
        assert!(texts.contains(&text), "{text}");
    }
}
