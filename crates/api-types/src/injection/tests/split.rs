//! Split §1, §3, §4 and §10.

use rstest::rstest;

use super::*;

const ENVOY: &str = "kagenti.io/envoy-proxy-inject";
const SPIFFE: &str = "kagenti.io/spiffe-helper-inject";
const REGISTRAR: &str = "kagenti.io/client-registration-inject";
const ANNOTATION: &str = "kagenti.io/keycloak-client-credentials-secret-name";

#[rstest]
#[case::built_in("", "", Layout::Combined, Source::ClusterDefault)]
#[case::platform("split", "", Layout::Split, Source::Platform)]
#[case::platform_combined("combined", "", Layout::Combined, Source::Platform)]
#[case::namespace("", "sidecarLayout: split", Layout::Split, Source::Namespace)]
#[case::namespace_back("split", "sidecarLayout: combined", Layout::Combined, Source::Namespace)]
#[case::invalid("split", "sidecarLayout: both", Layout::Split, Source::PlatformInvalid)]
#[case::invalid_built_in("", "sidecarLayout: 2", Layout::Combined, Source::ClusterDefaultInvalid)]
fn layout(#[case] platform: &str, #[case] namespace: &str, #[case] value: Layout, #[case] source: Source) {
    let mut world = World::new().config(namespace);
    if !platform.is_empty() {
        world = world.platform(&format!("sidecars: {{layout: {platform}}}"));
    }
    let decision = world.decide();
    assert_eq!(decision.layout, Resolved { value, source });
    assert_eq!(
        codes(&decision).contains(&WarningCode::InvalidLayout),
        source.as_str().ends_with("-invalid-fallback")
    );
}

/// Split §1: the default mode differs, also as the fallback of an invalid one.
#[rstest]
#[case("", Mode::EnvoySidecar, Source::ClusterDefault)]
#[case("mode: x", Mode::EnvoySidecar, Source::ClusterDefaultInvalid)]
#[case("mode: proxy-sidecar", Mode::ProxySidecar, Source::Namespace)]
fn default_mode(#[case] namespace: &str, #[case] value: Mode, #[case] source: Source) {
    assert_eq!(World::split().config(namespace).decide().mode, Resolved { value, source });
}

/// The eleven vectors of split §4: envoy, init, helper, registration.
#[rstest]
#[case::plain(World::split(), Some("1110"))]
#[case::gate_envoy(World::split().gates("envoyProxy: false"), Some("0010"))]
#[case::gate_spiffe(World::split().gates("spiffeHelper: false"), Some("1100"))]
#[case::gate_registration(World::split().gates("clientRegistration: false"), Some("1110"))]
#[case::gate_beats_label(World::split().gates("clientRegistration: false").label(REGISTRAR, "true"), Some("1110"))]
#[case::registration_true(World::split().label(REGISTRAR, "true"), Some("1111"))]
#[case::registration_false(World::split().label(REGISTRAR, "false"), Some("1110"))]
#[case::registration_yes(World::split().label(REGISTRAR, "yes"), Some("1110"))]
#[case::registration_capital(World::split().label(REGISTRAR, "True"), Some("1110"))]
#[case::envoy_false(World::split().label(ENVOY, "false"), Some("0010"))]
#[case::gate_beats_envoy_label(World::split().gates("envoyProxy: false").label(ENVOY, "true"), Some("0010"))]
#[case::spiffe_false(World::split().label(SPIFFE, "false"), Some("1100"))]
#[case::spire_disabled(World::split().label("kagenti.io/spire", "disabled"), Some("1100"))]
#[case::all_false(World::split().label(ENVOY, "false").label(SPIFFE, "false").label(REGISTRAR, "false"), None)]
fn vectors(#[case] world: World, #[case] expected: Option<&str>) {
    let decision = world.decide();
    let Some(expected) = expected else {
        assert_eq!(decision.outcome, Outcome::Skip(SkipReason::NoSidecarWanted));
        return;
    };
    assert_eq!(decision.outcome, Outcome::Inject);
    let got: String = [decision.proxy, decision.proxy_init, decision.helper, decision.registration_container]
        .map(|on| if on { '1' } else { '0' })
        .iter()
        .collect();
    assert_eq!(got, expected);
}

/// Split §4 rows 5 and 6: identity without proxy.
#[test]
fn no_proxy_pods() {
    let decision = World::split().label(ENVOY, "false").decide();
    assert_eq!(decision.outcome, Outcome::Inject);
    assert_eq!(decision.mtls, Resolved { value: Mtls::Disabled, source: Source::NoProxy });
    assert!(decision.spire && decision.helper && !decision.proxy && !decision.proxy_init);
    assert_eq!(decision.service_account, "weather");
    assert_eq!(codes(&decision), [WarningCode::NoProxy]);
    assert!(decision.sets_credentials_annotation, "the annotation is set as usual");

    let decision =
        World::split().label(ENVOY, "false").label(SPIFFE, "false").label(REGISTRAR, "true").decide();
    assert_eq!(decision.outcome, Outcome::Inject);
    assert!(!decision.helper && decision.registration_container && !decision.registration_spire);
    assert!(!decision.spire && !decision.replaces_service_account);
}

#[test]
fn no_proxy_with_strict_is_denied() {
    let world = World::split().label(ENVOY, "false");
    for world in [
        world.cr(|spec| spec.mtls_mode = Some("strict".into())),
        World::split().gates("envoyProxy: false").config("mtls: {mode: strict}"),
    ] {
        assert_eq!(denied(&world.decide()), Some(DenyReason::StrictWithoutProxy));
    }
    let decision = World::split().label(ENVOY, "false").config("mtls: {mode: permissive}").decide();
    assert_eq!(decision.mtls.source, Source::NoProxy);
}

#[test]
fn no_proxy_ignores_the_tls_bridge() {
    let decision = World::split()
        .label(ENVOY, "false")
        .cr(|spec| spec.tls_bridge_mode = Some("enabled".into()))
        .decide();
    assert!(!decision.tls_bridge.value);
    assert_eq!(codes(&decision), [WarningCode::TlsBridgeWithoutProxy, WarningCode::NoProxy]);
}

/// Split §4 row 9: S is wanted, but SPIRE is not to be had or the user brings the helper.
#[test]
fn nothing_to_add() {
    let decision = World::split().no_spire().label(ENVOY, "false").decide();
    assert_eq!(decision.outcome, Outcome::Skip(SkipReason::NothingToAdd));
    let decision = World::split()
        .label(ENVOY, "false")
        .decide_with(|inputs| inputs.pod.containers.own_spiffe_helper = true);
    assert_eq!(decision.outcome, Outcome::Skip(SkipReason::NothingToAdd));
}

/// Split §4: the gate acts like `spiffe.enabled: never`.
#[test]
fn gate_spiffe_helper_is_like_never() {
    let off = || World::split().gates("spiffeHelper: false");
    let decision = off().decide();
    assert!(!decision.spire && !decision.spire_available);
    assert_eq!(decision.mtls, Resolved { value: Mtls::Disabled, source: Source::SpireUnavailable });
    assert_eq!(decision.service_account, "default");
    let decision = off().config("mtls: {mode: strict}").decide();
    assert_eq!(denied(&decision), Some(DenyReason::StrictWithoutSpire));
    let combined = World::new().gates("spiffeHelper: false").decide();
    assert!(combined.spire, "ignored in layout combined");
}

/// Explicit mTLS on an opted-out Pod turns SPIRE on for the proxy without adding the helper.
#[test]
fn explicit_mtls_gives_the_proxy_spire_without_helper() {
    let decision = World::split().label(SPIFFE, "false").config("mtls: {mode: strict}").decide();
    assert_eq!(decision.outcome, Outcome::Inject);
    assert!(decision.spire && !decision.helper);
    assert_eq!(decision.mtls.value, Mtls::Strict);
}

#[test]
fn proxy_modes_have_helpers_too() {
    let decision =
        World::split().config("mode: lite\negressEnforcement: none").label(REGISTRAR, "true").decide();
    assert!(decision.proxy && !decision.proxy_init && decision.helper && decision.registration_container);
    assert!(decision.registration_spire);
    assert_eq!(World::split().config("mode: waypoint").decide().outcome, Outcome::Skip(SkipReason::Waypoint));
}

/// The table "Where credentials come from".
#[rstest]
#[case::not_asked(World::split(), Registration::Operator, &[])]
#[case::gate_off_user(
    World::split().gates("clientRegistration: false").label(REGISTRAR, "true").annotation(ANNOTATION, "mine"),
    Registration::User, &[]
)]
#[case::gate_off(World::split().gates("clientRegistration: false").label(REGISTRAR, "true"), Registration::None, &[])]
#[case::user(World::split().label(REGISTRAR, "true").annotation(ANNOTATION, "mine"), Registration::User, &[WarningCode::UserSecretWins])]
#[case::sidecar(World::split().label(REGISTRAR, "true"), Registration::Sidecar, &[])]
#[case::leftover(
    World::split().label(REGISTRAR, "true").annotation(ANNOTATION, "kagenti-keycloak-client-credentials-00"),
    Registration::Sidecar, &[WarningCode::LeftoverCredentials]
)]
#[case::token_url(
    World::split().label(REGISTRAR, "true").authbridge(&[("TOKEN_URL", "http://kc/realms/r/x")]),
    Registration::Sidecar, &[]
)]
#[case::no_keycloak(
    World::split().label(REGISTRAR, "true").authbridge(&[("ISSUER", "i"), ("KEYCLOAK_URL", "u")]),
    Registration::None, &[WarningCode::RegistrationWithoutKeycloak]
)]
fn registration_sources(
    #[case] world: World,
    #[case] registration: Registration,
    #[case] warnings: &[WarningCode],
) {
    let decision = world.decide();
    assert_eq!(decision.outcome, Outcome::Inject);
    assert_eq!(decision.registration, registration);
    assert_eq!(decision.registration_container, registration == Registration::Sidecar);
    let mounts = matches!(registration, Registration::Operator | Registration::User);
    assert_eq!(decision.credentials_secret.is_some(), mounts, "exactly one source");
    assert_eq!(codes(&decision), warnings);
}

#[test]
fn registration_without_keycloak_is_denied_where_identity_is_required() {
    let world = World::split()
        .platform("sidecars: {layout: split}\nidentity: {required: true}")
        .label(REGISTRAR, "true")
        .authbridge(&[("ISSUER", "i")]);
    assert_eq!(denied(&world.decide()), Some(DenyReason::RegistrationWithoutKeycloak));
    let world = world.label(ENVOY, "false").label(SPIFFE, "false");
    assert_eq!(denied(&world.decide()), Some(DenyReason::RegistrationWithoutKeycloak));
}

#[test]
fn own_containers_are_not_doubled() {
    let decision = World::split().label(REGISTRAR, "true").decide_with(|inputs| {
        inputs.pod.containers.own_registration = true;
        inputs.pod.containers.own_spiffe_helper = true;
    });
    assert_eq!(decision.outcome, Outcome::Inject);
    assert!(decision.proxy && !decision.helper && !decision.registration_container);
    assert_eq!(decision.registration, Registration::Sidecar);
    assert_eq!(decision.credentials_secret, None);
    assert_eq!(codes(&decision), [WarningCode::OwnSpiffeHelper, WarningCode::OwnRegistration]);
}

/// Split §5.3: SPIRE form with a helper of the user that shares `svid-output`.
#[rstest]
#[case(true, true, &[WarningCode::OwnSpiffeHelper])]
#[case(false, false, &[WarningCode::OwnSpiffeHelper, WarningCode::StaticIdFederated])]
fn spire_form_with_an_own_helper(
    #[case] mounts: bool,
    #[case] spire_form: bool,
    #[case] warnings: &[WarningCode],
) {
    let world = World::split().label(REGISTRAR, "true").authbridge(&[
        ("KEYCLOAK_URL", "u"),
        ("KEYCLOAK_REALM", "r"),
        ("CLIENT_AUTH_TYPE", "federated-jwt"),
    ]);
    let decision = world.decide_with(|inputs| {
        inputs.pod.containers.own_spiffe_helper = true;
        inputs.pod.containers.own_helper_mounts_svid = mounts;
    });
    assert_eq!(decision.registration_spire, spire_form);
    assert_eq!(codes(&decision), warnings);
}

#[rstest]
#[case("sidecars: {layout: split, uid: 1000}", true)]
#[case("sidecars: {layout: split, uid: null}", true)]
#[case("sidecars: {layout: split, uid: 1337}", false)]
fn helper_uid_mismatch(#[case] platform: &str, #[case] warned: bool) {
    let decision = World::new().platform(platform).label(REGISTRAR, "true").decide();
    assert_eq!(codes(&decision).contains(&WarningCode::HelperUidMismatch), warned);
    let without = World::new().platform(platform).decide();
    assert_eq!(codes(&without), []);
}

#[test]
fn registration_with_a_shared_process_namespace_is_denied() {
    let shared = |inputs: &mut Inputs<'_>| inputs.pod.share_process_namespace = true;
    let decision = World::split().label(REGISTRAR, "true").decide_with(shared);
    assert_eq!(denied(&decision), Some(DenyReason::RegistrationSharesProcesses));
    assert_eq!(World::split().decide_with(shared).outcome, Outcome::Inject);
}

/// Split §9: a reinvocation adds nothing new, and the left-over Secret stays unmounted.
#[test]
fn reinvocation_of_a_self_registering_pod() {
    let world = World::split()
        .label(REGISTRAR, "true")
        .annotation(ANNOTATION, "kagenti-keycloak-client-credentials-00");
    let decision = world.decide_with(|inputs| {
        inputs.pod.containers =
            ContainerNames::scan(["agent", "envoy-proxy", "kagenti-client-registration"], [], true);
    });
    assert_eq!(decision.outcome, Outcome::Skip(SkipReason::AlreadyInjected));
    assert_eq!(decision.registration, Registration::Sidecar);
    assert_eq!(decision.credentials_secret, None);
    assert_eq!(decision.warnings, []);
}
