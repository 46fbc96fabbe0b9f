//! Webhook §11.2 and §11.3; client-registration §3 and §4; README decision 14.

use rstest::rstest;

use super::*;

const ANNOTATION: &str = "kagenti.io/keycloak-client-credentials-secret-name";
const REGISTRAR: &str = "kagenti.io/client-registration-inject";

#[rstest]
#[case::keycloak(World::new(), Registration::Operator, true)]
#[case::no_realm(World::new().authbridge(&[("KEYCLOAK_URL", "http://kc")]), Registration::None, false)]
#[case::no_url(World::new().authbridge(&[("KEYCLOAK_REALM", "r"), ("ISSUER", "i")]), Registration::None, false)]
#[case::no_map(World::new().authbridge(&[]), Registration::None, false)]
#[case::gate_off(World::new().gates("clientRegistration: false"), Registration::None, false)]
#[case::other_label_value(World::new().label(REGISTRAR, "yes"), Registration::Operator, true)]
#[case::label(World::new().label(REGISTRAR, "true"), Registration::None, false)]
fn operator_secret_is_annotated_only_when_it_can_be_written(
    #[case] world: World,
    #[case] registration: Registration,
    #[case] annotated: bool,
) {
    let decision = world.decide();
    assert_eq!(decision.outcome, Outcome::Inject);
    assert_eq!(decision.registration, registration);
    assert_eq!(decision.sets_credentials_annotation, annotated);
    assert_eq!(
        decision.credentials_secret.as_deref(),
        annotated.then(|| crate::credentials::secret_name("team1", "weather")).as_deref()
    );
}

/// README decision 14: the user's own annotation counts, also without identity provider.
#[rstest]
#[case(World::new())]
#[case(World::new().authbridge(&[]))]
#[case(World::new().gates("clientRegistration: false"))]
#[case(World::new().label(REGISTRAR, "true"))]
fn the_users_annotation_is_kept(#[case] world: World) {
    let decision = world.annotation(ANNOTATION, "mine").decide();
    assert_eq!(decision.credentials_secret.as_deref(), Some("mine"));
    assert_eq!(decision.registration, Registration::User);
    assert!(!decision.sets_credentials_annotation);
}

#[test]
fn an_operator_name_in_the_annotation_is_the_operators() {
    let name = crate::credentials::secret_name("team1", "weather");
    let decision = World::new().annotation(ANNOTATION, &name).decide();
    assert_eq!(decision.registration, Registration::Operator);
    assert!(!decision.sets_credentials_annotation);
}

#[test]
fn the_registrar_label_warns_in_layout_combined() {
    let decision = World::new().label(REGISTRAR, "true").decide();
    assert_eq!(codes(&decision), [WarningCode::LegacyRegistrarLabel]);
}

#[rstest]
#[case(None, "weather", true)]
#[case(Some(""), "weather", true)]
#[case(Some("default"), "weather", true)]
#[case(Some("chosen"), "chosen", false)]
fn effective_service_account(
    #[case] own: Option<&'static str>,
    #[case] effective: &str,
    #[case] replaced: bool,
) {
    let decision = World::new().decide_with(|inputs| inputs.pod.service_account = own);
    assert_eq!((decision.service_account.as_str(), decision.replaces_service_account), (effective, replaced));
}

/// Client-registration §4: where nothing is injected the ServiceAccount stays.
#[test]
fn a_skipped_or_denied_pod_keeps_its_service_account() {
    for world in [
        World::new().label("kagenti.io/inject", "disabled"),
        World::new().config("mode: waypoint"),
        World::new().config("mode: ["),
    ] {
        let decision = world.decide();
        assert_ne!(decision.outcome, Outcome::Inject);
        assert_eq!(
            (decision.service_account.as_str(), decision.replaces_service_account),
            ("default", false)
        );
    }
}
