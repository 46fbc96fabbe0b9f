//! Properties of the shared decisions: idempotent, order-free, and no input makes them panic.

use std::collections::BTreeMap;

use api_types::{
    AgentRuntimeSpec, TargetRef, WorkloadType, config_hash, credentials, duplicates,
    gates::FeatureGates,
    go_duration,
    injection::{
        ClusterFacts, ContainerNames, Decision, Egress, Inputs, Layout, Mtls, NamespaceFacts, Outcome,
        PodFacts, PriorInjection, Registration, RuntimeDocument, Warning, decide, prefilter,
    },
    namespace_config::{AuthbridgeConfig, RuntimeConfig},
    owner,
    platform::{PlatformConfig, SpiffeEnabled, parse_quantity},
    yaml,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|n| json!(n)),
        (-1e12_f64..1e12).prop_map(|n| json!(n)),
        any::<String>().prop_map(Value::String),
        "[a-z0-9:#{}\\[\\]&*!|>'\"%@` -]{0,12}".prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The same value with the members of every map in reverse order.
fn reversed(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let members: Vec<_> = map.iter().map(|(k, v)| (k.clone(), reversed(v))).collect();
            Value::Object(members.into_iter().rev().collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(reversed).collect()),
        other => other.clone(),
    }
}

fn data() -> impl Strategy<Value = BTreeMap<String, String>> {
    let text = prop_oneof![any::<String>(), "[a-zA-Z]{1,8}: [a-z0-9]{0,4}\n", Just("a: [1, 2]\n".to_owned())];
    prop::collection::btree_map(prop_oneof!["[a-z]{1,6}", "[a-z]{1,4}\\.ya?ml"], text, 0..4)
}

fn word(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![9 => prop::sample::select(words).prop_map(str::to_owned), 1 => any::<String>()]
}

fn maybe(words: &'static [&'static str]) -> impl Strategy<Value = Option<String>> {
    prop::option::of(word(words))
}

#[derive(Debug)]
struct World {
    gates: FeatureGates,
    platform: PlatformConfig,
    spire_driver: bool,
    namespace_labels: BTreeMap<String, String>,
    config: Option<Result<RuntimeConfig, yaml::YamlError>>,
    authbridge: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    spec: Option<AgentRuntimeSpec>,
    service_account: Option<String>,
    flags: [bool; 6],
    prior: u8,
}

impl World {
    fn inputs(&self) -> Inputs<'_> {
        let [host_network, windows, share, own_helper, own_registration, mounts] = self.flags;
        Inputs {
            cluster: ClusterFacts {
                gates: &self.gates,
                platform: &self.platform,
                spire_driver: self.spire_driver,
                operator_namespace: "kagenti-system",
            },
            namespace: NamespaceFacts {
                name: "team1",
                labels: Some(&self.namespace_labels),
                runtime_config: match &self.config {
                    None => RuntimeDocument::Absent,
                    Some(Ok(config)) => RuntimeDocument::Parsed(config),
                    Some(Err(error)) => RuntimeDocument::Malformed(error),
                },
                authbridge: AuthbridgeConfig(Some(&self.authbridge)),
            },
            pod: PodFacts {
                workload: "weather",
                labels: Some(&self.labels),
                annotations: Some(&self.annotations),
                service_account: self.service_account.as_deref(),
                host_network,
                windows,
                share_process_namespace: share,
                containers: ContainerNames {
                    prior: match self.prior {
                        0 => PriorInjection::Ours,
                        1 => PriorInjection::Foreign,
                        _ => PriorInjection::None,
                    },
                    own_spiffe_helper: own_helper,
                    own_helper_mounts_svid: mounts,
                    own_registration,
                },
                ..PodFacts::default()
            },
            runtime: self.spec.as_ref(),
        }
    }
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    const SWITCH: &[&str] = &["true", "false", "disabled", ""];
    (
        word(&["agent", "agent", "agent", "tool"]),
        maybe(SWITCH),
        maybe(SWITCH),
        maybe(SWITCH),
        maybe(SWITCH),
        maybe(SWITCH),
        maybe(SWITCH),
    )
        .prop_map(|(kind, enrolled, inject, envoy, spiffe, spire, registrar)| {
            let mut map = BTreeMap::from([("kagenti.io/type".to_owned(), kind)]);
            for (key, value) in [
                ("agent.kagenti.dev/enrolled", enrolled),
                ("kagenti.io/inject", inject),
                ("kagenti.io/envoy-proxy-inject", envoy),
                ("kagenti.io/spiffe-helper-inject", spiffe),
                ("kagenti.io/spire", spire),
                ("kagenti.io/client-registration-inject", registrar),
            ] {
                map.extend(value.map(|value| (key.to_owned(), value)));
            }
            map
        })
}

fn spec() -> impl Strategy<Value = AgentRuntimeSpec> {
    (
        maybe(&["proxy-sidecar", "envoy-sidecar", "lite", "waypoint"]),
        maybe(&["disabled", "permissive", "strict"]),
        maybe(&["disabled", "enabled"]),
        maybe(&["reverse-proxy", "transparent"]),
        maybe(&["enforce-redirect", "none"]),
    )
        .prop_map(|(mode, mtls, tls, inbound, egress)| AgentRuntimeSpec {
            workload_type: WorkloadType::Agent,
            target_ref: TargetRef::default(),
            identity: None,
            auth_bridge_mode: mode.map(|text| text.as_str().into()),
            mtls_mode: mtls.map(|text| text.as_str().into()),
            tls_bridge_mode: tls.map(|text| text.as_str().into()),
            inbound_interception: inbound.map(|text| text.as_str().into()),
            egress_enforcement: egress.map(|text| text.as_str().into()),
        })
}

fn config() -> impl Strategy<Value = Option<Result<RuntimeConfig, yaml::YamlError>>> {
    (
        maybe(&["proxy-sidecar", "envoy-sidecar", "lite", "waypoint"]),
        maybe(&["disabled", "permissive", "strict"]),
        maybe(&["combined", "split"]),
        maybe(&["enabled"]),
        maybe(&["transparent"]),
        0..10_u8,
    )
        .prop_map(|(mode, mtls, layout, tls, inbound, kind)| match kind {
            0 => Some(RuntimeConfig::parse("mode: [")),
            1 => None,
            _ => Some(RuntimeConfig::parse(&yaml::to_yaml(&json!({
                "mode": mode, "mtls": {"mode": mtls}, "sidecarLayout": layout,
                "tls_bridge": {"mode": tls}, "listener": {"inbound_interception": inbound},
            })))),
        })
}

fn platform() -> impl Strategy<Value = PlatformConfig> {
    let enabled =
        prop::sample::select(&[SpiffeEnabled::Auto, SpiffeEnabled::Always, SpiffeEnabled::Never][..]);
    let egress = prop::sample::subsequence(vec![Egress::EnforceRedirect, Egress::None], 1..=2);
    let layout = prop::option::of(prop::sample::select(Layout::ALL));
    (enabled, any::<bool>(), layout, egress).prop_map(|(enabled, required, layout, egress)| {
        let mut platform = PlatformConfig::default();
        platform.spiffe.enabled = enabled;
        platform.identity.required = required;
        platform.sidecars.layout = layout;
        platform.proxy.allowed_egress_enforcement = egress;
        platform
    })
}

fn gates() -> impl Strategy<Value = FeatureGates> {
    // Mostly as shipped: a Pod that is skipped early says little.
    (0..8_u8, any::<bool>(), any::<bool>(), any::<bool>(), any::<Option<bool>>()).prop_map(
        |(global, envoy, tools, registration, helper)| FeatureGates {
            global_enabled: global > 0,
            envoy_proxy: envoy,
            inject_tools: tools,
            client_registration: registration,
            spiffe_helper: helper,
            ..FeatureGates::default()
        },
    )
}

fn world() -> impl Strategy<Value = World> {
    const SECRETS: &[&str] = &["mine", "kagenti-keycloak-client-credentials-0123456789abcdef", ""];
    (
        (gates(), platform(), any::<bool>(), config(), labels(), prop::option::of(spec())),
        maybe(&["http://kc"]),
        maybe(&["r"]),
        maybe(SECRETS),
        maybe(&["lite", "envoy-sidecar"]),
        maybe(&["default", "chosen", ""]),
        prop::array::uniform6(prop::bool::weighted(0.2)),
        0..12_u8,
    )
        .prop_map(|(main, url, realm, secret, mode, service_account, flags, prior)| {
            let (gates, platform, spire_driver, config, labels, spec) = main;
            let pairs = |pairs: [(&str, Option<String>); 2]| {
                pairs.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))).collect()
            };
            World {
                gates,
                platform,
                spire_driver,
                namespace_labels: BTreeMap::from([("kagenti-enabled".to_owned(), "true".to_owned())]),
                config,
                authbridge: pairs([("KEYCLOAK_URL", url), ("KEYCLOAK_REALM", realm)]),
                labels,
                annotations: pairs([
                    ("kagenti.io/keycloak-client-credentials-secret-name", secret),
                    ("kagenti.io/authbridge-mode", mode),
                ]),
                spec,
                service_account,
                flags,
                prior,
            }
        })
}

/// What must hold for every decision.
fn check(world: &World, decision: &Decision) {
    let injected = decision.outcome == Outcome::Inject;
    let inputs = world.inputs();
    assert_eq!(&decide(&inputs), decision, "a pure function");
    if let Some(reason) = prefilter(&inputs.cluster, &inputs.namespace, &inputs.pod) {
        assert_eq!(decision.outcome, Outcome::Skip(reason), "the pre-filter agrees");
    }
    for warning in &decision.warnings {
        assert!(
            !warning.message.is_empty() && warning.message.chars().count() <= Warning::LIMIT,
            "{warning:?}"
        );
    }
    if let Outcome::Deny(denial) = &decision.outcome {
        assert!(!denial.message.is_empty() && denial.message.chars().count() <= Warning::LIMIT, "{denial:?}");
    }
    if !injected {
        assert!(
            !decision.proxy && !decision.helper && !decision.registration_container && !decision.proxy_init
        );
        assert!(!decision.sets_credentials_annotation && !decision.replaces_service_account);
    }
    if injected {
        assert!(decision.proxy || decision.helper || decision.registration_container);
        let mtls = decision.mtls.value != Mtls::Disabled;
        assert!(!mtls || (decision.spire && decision.proxy), "mTLS needs SPIRE and a proxy");
        assert!(!decision.tls_bridge.value || (decision.mode.value.is_proxy() && world.spec.is_some()));
        let strict = decision.mtls_wanted.value == Mtls::Strict && decision.mtls_wanted.source.is_explicit();
        assert!(!strict || decision.mtls.value == Mtls::Strict, "strict is never weakened");
        assert!(!world.platform.identity.required || decision.identity_provider);
        assert!(world.platform.proxy.allowed_egress_enforcement.contains(&decision.egress.value));
    }
    assert!(!decision.spire || decision.spire_available);
    assert!(!decision.helper || decision.spire);
    let split = decision.layout.value == Layout::Split;
    assert!(split || (!decision.helper && !decision.registration_container));
    if decision.registration == Registration::Sidecar {
        assert_eq!(decision.credentials_secret, None, "exactly one source");
    }
    assert!(!decision.replaces_service_account || decision.service_account == "weather");
    assert!(!decision.service_account.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn decisions_hold_together(world in world()) {
        check(&world, &decide(&world.inputs()));
    }

    #[test]
    fn yaml_reads_what_it_wrote(value in json_value()) {
        let text = yaml::to_yaml(&value);
        prop_assert_eq!(&text, &yaml::to_yaml(&reversed(&value)), "the order of keys does not matter");
        let read = yaml::parse_value(&text);
        prop_assert_eq!(read.as_ref(), Ok(&value), "{}", text);
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in any::<String>(), shaped in "[a-z:\\[\\]{},&*!|>'\"%@`#? \\n\\t-]{0,60}") {
        for text in [&text, &shaped] {
            let _ = yaml::parse_value(text);
            let _ = FeatureGates::parse(text);
            let _ = PlatformConfig::parse(text);
            let _ = RuntimeConfig::parse(text);
            let _ = go_duration::parse(text);
            let _ = go_duration::sync_period(Some(text));
            let _ = parse_quantity(text);
        }
    }

    #[test]
    fn durations_shaped_like_durations(text in "[+-]?([0-9]{0,25}(\\.[0-9]{0,25})?(ns|us|µs|ms|s|m|h)?){0,3}") {
        let _ = go_duration::parse(&text);
    }

    #[test]
    fn quantities_shaped_like_quantities(text in "[+-]?[0-9]{0,22}(\\.[0-9]{0,12})?([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{0,4})?") {
        let _ = parse_quantity(&text);
    }

    /// Arbitrary documents under the keys of the platform file give a verdict.
    #[test]
    fn platform_files_of_any_shape(value in json_value(), section in prop::sample::select(
        &["images", "proxy", "resources", "spiffe", "identity", "pod", "sidecar", "sidecars"][..])) {
        let _ = PlatformConfig::parse(&yaml::to_yaml(&json!({section: value.clone()})));
        for key in ["port", "uid", "allowedEgressEnforcement", "noProxy", "authbridge", "socketPath", "fsGroup", "layout"] {
            let _ = PlatformConfig::parse(&yaml::to_yaml(&json!({section: {key: value.clone()}})));
        }
    }

    #[test]
    fn workload_of_any_pod(
        name in any::<String>(), generate_name in any::<String>(), uid in any::<String>(), hash in any::<String>(),
        api_version in "(apps/v1|batch/v1|v1|.{0,8})", kind in "(ReplicaSet|Job|StatefulSet|.{0,8})", owned in any::<bool>(),
    ) {
        let labels = BTreeMap::from([("pod-template-hash".to_owned(), hash.clone())]);
        let reference = OwnerReference {
            api_version, kind, name: format!("{name}-{hash}"), controller: Some(true), ..OwnerReference::default()
        };
        let pod = owner::PodIdentity {
            name: &name, generate_name: &generate_name, uid: &uid, labels: Some(&labels),
            owner: owned.then_some(&reference),
        };
        let workload = owner::workload_of(&pod, None);
        prop_assert_eq!(&workload, &owner::workload_of(&pod, None));
        prop_assert!(owned || !workload.name.is_empty() || (name.is_empty() && uid.is_empty()));
        prop_assert!(workload.name.len() > 240 || owner::config_map_name(&workload.name).len() <= 253 + 200 * 3);
        let _ = credentials::secret_name(&name, &workload.name);
    }

    #[test]
    fn short_names_stay_and_long_names_fit(name in "[a-z0-9-]{1,300}") {
        let object = owner::config_map_name(&name);
        prop_assert!(object.len() <= 253);
        prop_assert!(name.len() > 235 || object.ends_with(&name));
        prop_assert!(owner::tls_bridge_secret_name(&name).len() <= 253);
    }

    /// Runtime §5.3: the order of anything that has none is no input, and the same input gives the same hash.
    #[test]
    fn hashes_are_order_free(
        members in prop::collection::vec(prop::option::of(data()), 7),
        defaults in prop::collection::btree_map("[a-z]{1,5}", data(), 0..4),
        document in json_value(),
    ) {
        let labelled: Vec<config_hash::NamedData<'_>> =
            defaults.iter().map(|(name, data)| config_hash::NamedData { name, data }).collect();
        let backwards: Vec<_> = labelled.iter().rev().copied().collect();
        let mut members = members;
        let mut other = members.clone();
        members[2] = Some(BTreeMap::from([("config.yaml".to_owned(), serde_json::to_string(&document).expect("json"))]));
        other[2] = Some(BTreeMap::from([("config.yaml".to_owned(), serde_json::to_string_pretty(&reversed(&document)).expect("json"))]));
        let of = |members: &[Option<BTreeMap<String, String>>], labelled: &[config_hash::NamedData<'_>]| {
            config_hash::v2(&config_hash::HashInputs {
                namespace: "n",
                feature_gates: members[0].as_ref(),
                platform: members[1].as_ref(),
                labelled_defaults: labelled,
                authbridge_runtime: members[2].as_ref(),
                authbridge_config: members[3].as_ref(),
                spiffe_helper: members[4].as_ref(),
                authproxy_routes: members[5].as_ref(),
                envoy: members[6].as_ref(),
            })
        };
        let result = of(&members, &labelled);
        prop_assert_eq!(result.hash.len(), 64);
        prop_assert!(result.hash.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()));
        let again = of(&other, &backwards);
        if result.warnings == again.warnings {
            prop_assert_eq!(result, again);
        }
    }

    #[test]
    fn v1_of_anything(gates in data(), platform in data(), overlay in data(), runtime in any::<String>()) {
        let hash = config_hash::v1(&gates, &platform, &overlay, &runtime);
        prop_assert_eq!(hash.len(), 64);
        prop_assert!(config_hash::v1_candidates(&gates, &platform, &[&overlay], &runtime).contains(&hash));
    }

    /// Runtime §9.2: every replica picks the same winner.
    #[test]
    fn winners_do_not_depend_on_the_order(
        claims in prop::collection::vec(("[a-c]{1,2}", 0..3_i64, any::<bool>(), any::<bool>()), 0..6),
        seed in any::<usize>(),
    ) {
        let claims: Vec<duplicates::Claim<'_>> = claims
            .iter()
            .enumerate()
            .filter(|(at, (name, ..))| !claims[..*at].iter().any(|(other, ..)| other == name))
            .map(|(_, (name, second, terminating, automatic))| duplicates::Claim {
                name,
                created: jiff::Timestamp::from_second(*second).ok(),
                terminating: *terminating,
                automatic: *automatic,
            })
            .collect();
        let mut other = claims.clone();
        other.reverse();
        let turn = if other.is_empty() { 0 } else { seed % other.len() };
        other.rotate_left(turn);
        prop_assert_eq!(
            duplicates::runtime_winner(claims.iter().copied()),
            duplicates::runtime_winner(other.iter().copied())
        );
        prop_assert_eq!(
            duplicates::card_winner(claims.iter().copied()),
            duplicates::card_winner(other.iter().copied())
        );
    }
}
