//! Table tests of webhook §12.1.

use std::collections::BTreeMap;

use api_types::injection::{Resolved, Source};
use rstest::rstest;
use serde_json::json;

use super::*;

struct Case {
    base: &'static str,
    map: &'static [(&'static str, &'static str)],
    audiences: &'static [&'static str],
    edit: fn(&mut Decision, &mut PortPlan),
}

impl Default for Case {
    fn default() -> Self {
        Self { base: "", map: &[], audiences: &[], edit: |_, _| {} }
    }
}

fn rendered(case: &Case) -> (String, Vec<&'static str>) {
    let base = RuntimeConfig::parse(case.base).expect("a base");
    let map: BTreeMap<String, String> =
        case.map.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let authbridge = AuthbridgeConfig(Some(&map));
    let mut decision = Decision {
        spire: true,
        identity_provider: api_types::namespace_config::has_identity_provider(authbridge, Some(&base)),
        ..Decision::default()
    };
    let mut ports = PortPlan {
        original: 8000,
        relocated: 8001,
        forward: 8081,
        transparent: 8082,
        stats: 9093,
        session: 9094,
        ..PortPlan::default()
    };
    (case.edit)(&mut decision, &mut ports);
    let audiences: Vec<String> = case.audiences.iter().map(|text| (*text).to_owned()).collect();
    let mut warnings = Vec::new();
    let text = render(
        &SidecarConfig {
            base: Some(&base),
            authbridge,
            decision: &decision,
            ports: &ports,
            allowed_audiences: &audiences,
            socket: "unix:///spiffe-workload-api/spire-agent.sock",
            pinned: None,
        },
        &mut warnings,
    );
    (text, warnings.iter().map(|warning| warning.code.as_str()).collect())
}

fn parsed(case: &Case) -> Value {
    yaml::parse_value(&rendered(case).0).expect("YAML")
}

const KEYCLOAK: &[(&str, &str)] =
    &[("ISSUER", "https://kc/realms/r"), ("KEYCLOAK_URL", "http://kc:8080"), ("KEYCLOAK_REALM", "r")];

fn set<T>(slot: &mut Resolved<T>, value: T) {
    *slot = Resolved { value, source: Source::Namespace };
}

#[test]
fn the_example_of_the_chapter() {
    let want = yaml::parse_value(
        r#"
listener: {forward_proxy_addr: ":8081", reverse_proxy_addr: ":8000", reverse_proxy_backend: "http://127.0.0.1:8001", transparent_proxy_addr: ":8082"}
mode: proxy-sidecar
mtls: {mode: permissive}
pipeline:
  inbound: {plugins: [{name: jwt-validation, config: {issuer: "https://kc/realms/r", keycloak_realm: r, keycloak_url: "http://kc:8080"}}]}
  outbound: {plugins: [{name: token-exchange, config: {identity: {type: client-secret}, keycloak_realm: r, keycloak_url: "http://kc:8080"}}]}
spiffe: {socket: "unix:///spiffe-workload-api/spire-agent.sock"}
"#,
    )
    .expect("YAML");
    assert_eq!(parsed(&Case { map: KEYCLOAK, ..Case::default() }), want);
}

#[test]
fn the_text_is_sorted_and_stable() {
    let case = Case { map: KEYCLOAK, base: "zeta: 1\nalpha: {b: 1, a: 2}\n", ..Case::default() };
    let (text, _) = rendered(&case);
    let top: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(top, ["alpha", "listener", "mode", "mtls", "pipeline", "spiffe", "zeta"]);
    assert_eq!(text, rendered(&case).0);
}

// Step 1.
#[test]
fn webhook_keys_are_dropped_and_others_kept() {
    let base = "egressEnforcement: none\ninboundInterception: x\nsidecarLayout: split\nsession: {ttl: 1h}\n";
    let config = parsed(&Case { base, map: KEYCLOAK, ..Case::default() });
    for key in WEBHOOK_KEYS {
        assert!(config[key].is_null(), "{key}");
    }
    assert_eq!(config["session"], json!({"ttl": "1h"}));
}

// Step 2, identity of the token exchange.
#[rstest]
#[case(&[], json!({"type": "client-secret"}))]
#[case(&[("CLIENT_AUTH_TYPE", "client-secret")], json!({"type": "client-secret"}))]
#[case(&[("CLIENT_AUTH_TYPE", "other")], json!({"type": "other"}))]
#[case(&[("CLIENT_AUTH_TYPE", "federated-jwt")], json!({"type": "spiffe"}))]
#[case(&[("CLIENT_AUTH_TYPE", "federated-jwt"), ("ISSUER", "i")], json!({"type": "spiffe", "jwt_audience": "i"}))]
#[case(
    &[("CLIENT_AUTH_TYPE", "federated-jwt"), ("ISSUER", "i"), ("JWT_AUDIENCE", "a")],
    json!({"type": "spiffe", "jwt_audience": "a"})
)]
fn exchange_identity(#[case] map: &'static [(&'static str, &'static str)], #[case] want: Value) {
    let mut with_token = vec![("TOKEN_URL", "http://t")];
    with_token.extend(map);
    let case = Case { map: with_token.leak(), ..Case::default() };
    let exchange = parsed(&case)["pipeline"]["outbound"]["plugins"][0]["config"].clone();
    assert_eq!(exchange["identity"], want);
    assert_eq!(exchange["token_url"], "http://t");
}

#[rstest]
#[case::none(&[], json!([]), &[])]
#[case::token_only(&[("TOKEN_URL", "http://t")], json!([{"name": "jwt-validation", "config": {}}]), &["issuer-unknown"])]
#[case::policy(
    &[("KEYCLOAK_URL", "http://kc"), ("KEYCLOAK_REALM", "r")],
    json!([{"name": "jwt-validation", "config": {
        "issuer": "http://kc/realms/r", "keycloak_url": "http://kc", "keycloak_realm": "r"
    }}]),
    &[]
)]
fn inbound_validation(
    #[case] map: &'static [(&'static str, &'static str)],
    #[case] want: Value,
    #[case] codes: &[&str],
) {
    let case = Case { map, ..Case::default() };
    assert_eq!(parsed(&case)["pipeline"]["inbound"]["plugins"], want);
    assert_eq!(rendered(&case).1, codes);
}

#[test]
fn a_present_pipeline_is_left_as_it_is() {
    let base = "pipeline: {inbound: {plugins: [x]}}";
    assert_eq!(parsed(&Case { base, ..Case::default() })["pipeline"], json!({"inbound": {"plugins": ["x"]}}));
}

// Step 3.
#[rstest]
#[case::string(
    "pipeline: {inbound: {plugins: [jwt-validation, other]}}",
    json!([
        {"name": "jwt-validation", "config": {"allowed_audiences": ["a"], "audience_file": "/shared/client-id.txt"}},
        "other",
    ])
)]
#[case::own_audience(
    "pipeline: {inbound: {plugins: [{name: jwt-validation, id: x, config: {audience: mine, allowed_audiences: [b]}}]}}",
    json!([{"name": "jwt-validation", "id": "x", "config": {"audience": "mine", "allowed_audiences": ["a"]}}])
)]
#[case::own_file(
    "pipeline: {inbound: {plugins: [{name: jwt-validation, config: {audience_file: /f}}]}}",
    json!([{"name": "jwt-validation", "config": {"audience_file": "/f", "allowed_audiences": ["a"]}}])
)]
fn allowed_audiences(#[case] base: &'static str, #[case] want: Value) {
    let case = Case { base, audiences: &["a"], ..Case::default() };
    assert_eq!(parsed(&case)["pipeline"]["inbound"]["plugins"], want);
    assert!(rendered(&case).1.is_empty());
}

#[rstest]
#[case("")]
#[case("pipeline: {inbound: {plugins: [other]}}")]
#[case("pipeline: {outbound: {plugins: [jwt-validation]}}")]
#[case("pipeline: [odd]")]
fn audiences_without_validation_warn(#[case] base: &'static str) {
    let case = Case { base, audiences: &["a"], ..Case::default() };
    assert_eq!(rendered(&case).1, ["audiences-unused"]);
}

// Step 5: keys with which the sidecar would refuse to start (webhook §1).
#[test]
fn envoy_has_no_proxy_listeners() {
    let base = "listener: {reverse_proxy_addr: a, reverse_proxy_backend: b, forward_proxy_addr: c, \
                transparent_proxy_addr: d, transparent_inbound_addr: e, inbound_interception: transparent, \
                roles: [x], ext_authz_addr: f, ext_proc_addr: \":9090\", skip_hosts: [h]}";
    let case = Case {
        base,
        edit: |decision, ports| {
            set(&mut decision.mode, Mode::EnvoySidecar);
            ports.stats = 9095;
            ports.session = 9096;
        },
        ..Case::default()
    };
    let config = parsed(&case);
    assert_eq!(
        config["listener"],
        json!({"ext_proc_addr": ":9090", "skip_hosts": ["h"], "session_api_addr": ":9096"})
    );
    assert_eq!((&config["mode"], &config["stats"]["address"]), (&json!("envoy-sidecar"), &json!(":9095")));
}

#[test]
fn proxies_have_no_envoy_listeners() {
    let base = "listener: {ext_proc_addr: a, ext_authz_addr: b, inbound_interception: transparent, session_api_addr: \":1\"}";
    let listener = parsed(&Case { base, ..Case::default() })["listener"].clone();
    assert_eq!(
        listener,
        json!({
            "forward_proxy_addr": ":8081",
            "reverse_proxy_addr": ":8000",
            "reverse_proxy_backend": "http://127.0.0.1:8001",
            "session_api_addr": ":1",
            "transparent_proxy_addr": ":8082",
        })
    );
}

// Steps 6-8.
#[test]
fn sections_follow_the_decision() {
    let base = "mtls: {mode: strict}\ntls_bridge: {mode: enabled, ports: [443], passthrough_hosts: [h]}\n\
                spiffe: {socket: unix:///other, mirror_dir: /m}\n";
    let off = parsed(&Case {
        base,
        edit: |decision, _| {
            decision.spire = false;
            set(&mut decision.mtls, Mtls::Disabled);
        },
        ..Case::default()
    });
    assert!(off["mtls"].is_null() && off["tls_bridge"].is_null() && off["spiffe"].is_null(), "{off}");
    let on = parsed(&Case {
        base,
        edit: |decision, _| {
            set(&mut decision.mtls, Mtls::Permissive);
            set(&mut decision.tls_bridge, true);
        },
        ..Case::default()
    });
    assert_eq!(on["mtls"], json!({"mode": "permissive"}));
    assert_eq!(
        on["tls_bridge"],
        json!({
            "mode": "enabled",
            "ca_dir": "/etc/authbridge/tls-bridge-ca",
            "ports": [443],
            "passthrough_hosts": ["h"],
        })
    );
    assert_eq!(
        on["spiffe"],
        json!({"socket": "unix:///spiffe-workload-api/spire-agent.sock", "mirror_dir": "/m"})
    );
}

#[test]
fn odd_sections_do_not_stop_rendering() {
    let case = Case { base: "listener: 5\nstats: [a]\nspiffe: x\npipeline: 7\n", ..Case::default() };
    let config = parsed(&case);
    assert_eq!(config["listener"]["forward_proxy_addr"], ":8081");
}
