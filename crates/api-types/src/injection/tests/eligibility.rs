//! Webhook §5 rows 1-12 and 15.

use rstest::rstest;

use super::*;

#[test]
fn a_plain_agent_is_injected_with_the_defaults() {
    let decision = World::new().decide();
    assert_eq!(decision.outcome, Outcome::Inject);
    assert_eq!(decision.layout, Resolved { value: Layout::Combined, source: Source::ClusterDefault });
    assert_eq!(decision.mode, Resolved { value: Mode::ProxySidecar, source: Source::ClusterDefault });
    assert_eq!(decision.mtls, Resolved { value: Mtls::Permissive, source: Source::BuiltIn });
    assert_eq!(decision.egress, Resolved { value: Egress::EnforceRedirect, source: Source::ClusterDefault });
    assert_eq!(decision.tls_bridge, Resolved { value: false, source: Source::BuiltIn });
    assert_eq!(decision.inbound, Resolved { value: Inbound::ReverseProxy, source: Source::BuiltIn });
    assert!(decision.spire && decision.proxy && decision.proxy_init && decision.identity_provider);
    assert!(!decision.helper && !decision.registration_container);
    assert_eq!((decision.service_account.as_str(), decision.replaces_service_account), ("weather", true));
    assert_eq!(decision.registration, Registration::Operator);
    assert_eq!(decision.credentials_secret, Some(crate::credentials::secret_name("team1", "weather")));
    assert!(decision.sets_credentials_annotation);
    assert_eq!(decision.warnings, []);
}

#[rstest]
#[case::mirror(World::new().annotation("kubernetes.io/config.mirror", "x"), SkipReason::MirrorPod)]
#[case::no_type(World::new().label("kagenti.io/type", ""), SkipReason::NotAgentOrTool)]
#[case::other_type(World::new().label("kagenti.io/type", "Agent"), SkipReason::NotAgentOrTool)]
#[case::globally_off(World::new().gates("globalEnabled: false"), SkipReason::GloballyOff)]
#[case::tool(World::new().label("kagenti.io/type", "tool"), SkipReason::ToolsOff)]
#[case::inject_disabled(World::new().label("kagenti.io/inject", "disabled"), SkipReason::InjectDisabled)]
#[case::all_gates_off(
    World::new().gates("globalEnabled: false\nenvoyProxy: false\ninjectTools: false\nperWorkloadConfigResolution: false\nskillDiscovery: false\nclientRegistration: false"),
    SkipReason::GloballyOff
)]
#[case::both_labels_off(
    World::new().label("kagenti.io/envoy-proxy-inject", "false").label("kagenti.io/spiffe-helper-inject", "false"),
    SkipReason::NoSidecarWanted
)]
#[case::gate_and_spire_label(
    World::new().gates("envoyProxy: false").label("kagenti.io/spire", "disabled"),
    SkipReason::NoSidecarWanted
)]
#[case::waypoint(World::new().cr(|spec| spec.auth_bridge_mode = Some("waypoint".into())), SkipReason::Waypoint)]
fn skipped_without_a_word(#[case] world: World, #[case] reason: SkipReason) {
    let decision = world.decide();
    assert_eq!(decision.outcome, Outcome::Skip(reason));
    assert_eq!(decision.warnings, []);
    assert_eq!((decision.service_account.as_str(), decision.replaces_service_account), ("default", false));
    assert_eq!(decision.credentials_secret, None);
    assert!(!decision.proxy && !decision.proxy_init);
}

#[rstest]
#[case("kube-system", SkipReason::ExcludedNamespace)]
#[case("kube-public", SkipReason::ExcludedNamespace)]
#[case("kube-node-lease", SkipReason::ExcludedNamespace)]
#[case("kagenti-system", SkipReason::ExcludedNamespace)]
fn excluded_namespaces(#[case] namespace: &str, #[case] reason: SkipReason) {
    let mut world = World::new().label("agent.kagenti.dev/enrolled", "true");
    world.namespace = namespace.into();
    assert_eq!(world.decide().outcome, Outcome::Skip(reason));
}

/// Row 1: an enabled namespace or an enrolled pod; exactly `true`.
#[rstest]
#[case(&[], &[], false)]
#[case(&[("kagenti-enabled", "True")], &[], false)]
#[case(&[], &[("agent.kagenti.dev/enrolled", "yes")], false)]
#[case(&[("kagenti-enabled", "true")], &[], true)]
#[case(&[], &[("agent.kagenti.dev/enrolled", "true")], true)]
fn namespace_or_pod_must_ask(
    #[case] namespace: &[(&str, &str)],
    #[case] pod: &[(&str, &str)],
    #[case] injected: bool,
) {
    let mut world = World::new();
    world.namespace_labels = map(namespace);
    world.labels.extend(map(pod));
    let expected = if injected { Outcome::Inject } else { Outcome::Skip(SkipReason::NamespaceNotEnabled) };
    assert_eq!(world.decide().outcome, expected);
}

#[rstest]
#[case("enabled")]
#[case("true")]
#[case("")]
fn other_inject_values_do_not_block(#[case] value: &str) {
    assert_eq!(World::new().label("kagenti.io/inject", value).decide().outcome, Outcome::Inject);
}

#[test]
fn tools_are_injected_when_the_gate_says_so() {
    let decision = World::new().label("kagenti.io/type", "tool").gates("injectTools: true").decide();
    assert_eq!(decision.outcome, Outcome::Inject);
    assert_eq!(decision.registration, Registration::Operator);
}

/// runtime-ctl decides before its labels are on the template.
#[test]
fn enrolled_as_stands_for_the_labels_of_the_enrolment() {
    let mut world = World::new();
    world.namespace_labels.clear();
    world.labels.clear();
    assert_eq!(world.decide().outcome, Outcome::Skip(SkipReason::NamespaceNotEnabled));
    let decision = world.decide_with(|inputs| {
        inputs.pod.enrolled_as = Some("agent");
        inputs.pod.labels = None;
        inputs.namespace.labels = None;
    });
    assert_eq!(decision.outcome, Outcome::Inject);
}

/// The settings are there whatever happens to the Pod.
#[test]
fn a_skipped_pod_still_has_resolved_settings() {
    let decision = World::new().gates("globalEnabled: false").config("mtls: {mode: strict}").decide();
    assert_eq!(decision.mtls, Resolved { value: Mtls::Strict, source: Source::Namespace });
}

#[test]
fn row_7_injected_before() {
    for prior in [PriorInjection::Ours, PriorInjection::Foreign] {
        let world = World::new().annotation("kagenti.io/keycloak-client-credentials-secret-name", "mine");
        let decision = world.decide_with(|inputs| inputs.pod.containers.prior = prior);
        assert_eq!(decision.outcome, Outcome::Skip(SkipReason::AlreadyInjected));
        assert_eq!(decision.credentials_secret.as_deref(), Some("mine"));
        assert!(!decision.sets_credentials_annotation);
        let decision = World::new().decide_with(|inputs| inputs.pod.containers.prior = prior);
        assert_eq!(decision.credentials_secret, None, "nothing new on reinvocation");
    }
    assert_eq!(SkipReason::AlreadyInjected.message(), "already injected");
    assert_eq!(SkipReason::Waypoint.message(), "injection not enabled");
}

#[test]
fn row_10_envoy_switched_off() {
    for world in [
        World::new().gates("envoyProxy: false"),
        World::new().label("kagenti.io/envoy-proxy-inject", "false"),
    ] {
        let decision = world.config("mode: envoy-sidecar").decide();
        assert_eq!(decision.outcome, Outcome::Skip(SkipReason::EnvoyOff));
        assert_eq!(codes(&decision), [WarningCode::EnvoyOff]);
    }
}

/// The label is defined for envoy-sidecar only.
#[test]
fn envoy_label_means_nothing_to_the_proxy_modes() {
    let decision = World::new().label("kagenti.io/envoy-proxy-inject", "false").decide();
    assert_eq!(decision.outcome, Outcome::Inject);
    assert!(decision.proxy);
}

#[rstest]
#[case(|pod: &mut PodFacts<'_>| pod.host_network = true, DenyReason::HostNetwork)]
#[case(|pod: &mut PodFacts<'_>| pod.windows = true, DenyReason::Windows)]
fn rows_11_and_12(#[case] adjust: fn(&mut PodFacts<'_>), #[case] reason: DenyReason) {
    let decision = World::new().decide_with(|inputs| adjust(&mut inputs.pod));
    let Outcome::Deny(denial) = decision.outcome else { panic!("denied") };
    assert_eq!(denial.reason, reason);
    assert!(denial.message.contains("kagenti.io/inject: disabled"), "{}", denial.message);
    assert!(denial.message.chars().count() <= Warning::LIMIT);
}

/// Webhook §7.3: an unreadable document must not weaken anything.
#[rstest]
#[case("mode: [")]
#[case("just text")]
#[case("- a\n- b")]
fn malformed_namespace_config_is_denied(#[case] text: &str) {
    let decision = World::new().config(text).decide();
    let Outcome::Deny(denial) = decision.outcome else { panic!("denied") };
    assert_eq!(denial.reason, DenyReason::MalformedNamespaceConfig);
    assert!(denial.message.contains("authbridge-runtime-config"), "{}", denial.message);
    assert!(denial.message.contains("line 1"), "{}", denial.message);
}

/// README decision 1c, webhook §12.1 step 2.
#[rstest]
#[case(&[], "", false)]
#[case(&[("KEYCLOAK_REALM", "r"), ("KEYCLOAK_URL", " ")], "", false)]
#[case(&[("KEYCLOAK_URL", "http://kc")], "", true)]
#[case(&[("ISSUER", "http://kc/realms/r")], "", true)]
#[case(&[("TOKEN_URL", "http://kc/token")], "", true)]
#[case(&[], "pipeline: {inbound: {plugins: []}}", true)]
#[case(&[], "pipeline: {}", false)]
#[case(&[], "pipeline:", false)]
fn identity_provider(#[case] authbridge: &[(&str, &str)], #[case] config: &str, #[case] expected: bool) {
    let world = World::new().authbridge(authbridge).config(config);
    let decision = world.decide();
    assert_eq!(decision.outcome, Outcome::Inject);
    assert_eq!(decision.identity_provider, expected);
    assert_eq!(codes(&decision).contains(&WarningCode::NoIdentityProvider), !expected);

    let decision = world.platform("identity: {required: true}").decide();
    assert_eq!(decision.identity_provider, expected);
    assert_eq!(denied(&decision), (!expected).then_some(DenyReason::NoIdentityProvider));
    if let Outcome::Deny(denial) = &decision.outcome {
        for word in ["authbridge-config", "KEYCLOAK_URL", "ISSUER", "TOKEN_URL", "team1"] {
            assert!(denial.message.contains(word), "{}", denial.message);
        }
    }
}

/// Webhook §11.5, split §9.
#[rstest]
#[case(&["agent", "authbridge-proxy"], &[], true, PriorInjection::Ours)]
#[case(&["agent", "envoy-proxy"], &[], false, PriorInjection::Foreign)]
#[case(&["agent"], &[("proxy-init", false)], false, PriorInjection::Foreign)]
#[case(&["agent"], &[("authbridge-proxy", true)], true, PriorInjection::Ours)]
#[case(&["agent"], &[("authbridge-proxy", false)], true, PriorInjection::None)]
#[case(&["agent", "spiffe-helper"], &[], true, PriorInjection::Ours)]
#[case(&["agent", "spiffe-helper"], &[], false, PriorInjection::None)]
#[case(&["agent", "kagenti-client-registration"], &[], true, PriorInjection::Ours)]
#[case(&["agent"], &[], true, PriorInjection::None)]
#[case(&["proxy-init"], &[], true, PriorInjection::None)]
fn container_names(
    #[case] regular: &[&str],
    #[case] init: &[(&str, bool)],
    #[case] annotated: bool,
    #[case] prior: PriorInjection,
) {
    let names = ContainerNames::scan(regular.iter().copied(), init.iter().copied(), annotated);
    assert_eq!(names.prior, prior);
    assert_eq!(names.own_spiffe_helper, regular.contains(&"spiffe-helper"));
    assert_eq!(names.own_registration, regular.contains(&"kagenti-client-registration"));
}
