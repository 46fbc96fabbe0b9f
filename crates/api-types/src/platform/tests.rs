use rstest::rstest;

use super::*;

fn parse(text: &str) -> Parsed<PlatformConfig> {
    PlatformConfig::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn problems(text: &str) -> Vec<String> {
    match PlatformConfig::parse(text) {
        Err(PlatformConfigError::Invalid(problems)) => problems,
        other => panic!("{text}: {other:?}"),
    }
}

#[rstest]
#[case("")]
#[case("{}")]
#[case("# comment")]
#[case("images:\nproxy: {}\n")]
fn an_empty_file_means_the_defaults(#[case] text: &str) {
    assert_eq!(parse(text), Parsed { value: PlatformConfig::default(), ignored: vec![] });
}

#[test]
fn the_defaults_of_the_chapter() {
    let config = PlatformConfig::default();
    assert_eq!(config.images.envoy_proxy, "ghcr.io/kagenti/kagenti-extensions/authbridge-envoy:latest");
    assert_eq!(config.images.proxy_init, "ghcr.io/kagenti/kagenti-extensions/proxy-init:latest");
    assert_eq!(
        (config.proxy.port, config.proxy.inbound_proxy_port, config.proxy.admin_port),
        (15123, 15124, 9901)
    );
    assert_eq!(config.spiffe.socket_dir(), "/spiffe-workload-api");
    assert_eq!(config.spiffe.socket_file(), "/spiffe-workload-api/spire-agent.sock");
    assert_eq!(config.pod.fs_group, Some(0));
    assert_eq!(config.sidecars.uid.resolve(config.proxy.uid), Some(1337));
    let limits = config.resources.authbridge.limits.expect("limits");
    assert_eq!((limits["cpu"].0.as_str(), limits["memory"].0.as_str()), ("300m", "384Mi"));
}

/// Every key reaches its field.
#[test]
fn every_key_is_read() {
    let text = "
images: {envoyProxy: a, authbridge: b, authbridgeLite: c, proxyInit: d, pullPolicy: Always, spiffeHelper: e, clientRegistration: f}
proxy: {port: 2001, inboundProxyPort: 2002, adminPort: 2003, transparentPort: 2004, uid: 7, iptablesCmd: iptables-nft, allowedEgressEnforcement: [none], noProxy: [x.svc, 10.0.0.0/8]}
resources:
  envoyProxy: {limits: {cpu: 1}}
  proxyInit: {requests: {cpu: 5m}}
  authbridge: {limits: {cpu: null}}
  spiffeHelper: {limits: {memory: 256Mi}}
  clientRegistration: {limits: {memory: 512Mi}}
spiffe: {socketPath: 'unix:///run/spire/agent.sock', trustDomain: example.org, enabled: always}
identity: {required: true}
pod: {fsGroup: null}
sidecar: {native: always, probes: true}
sidecars: {layout: split, uid: 1000, envoyProxy: {enabled: true}}
tokenExchange: {tokenUrl: x, defaultAudience: y, defaultScopes: [z]}
observability: {logLevel: debug, enableMetrics: false}
";
    let Parsed { value: config, ignored } = parse(text);
    assert_eq!(ignored, Vec::<String>::new());
    assert_eq!(
        config.images,
        Images {
            envoy_proxy: "a".into(),
            authbridge: "b".into(),
            authbridge_lite: "c".into(),
            proxy_init: "d".into(),
            spiffe_helper: "e".into(),
            client_registration: "f".into(),
            pull_policy: "Always".into(),
        }
    );
    assert_eq!(
        config.proxy,
        Proxy {
            port: 2001,
            inbound_proxy_port: 2002,
            admin_port: 2003,
            transparent_port: 2004,
            uid: 7,
            iptables_cmd: "iptables-nft".into(),
            allowed_egress_enforcement: vec![Egress::None],
            no_proxy: vec!["x.svc".into(), "10.0.0.0/8".into()],
        }
    );
    assert_eq!(config.spiffe.enabled, SpiffeEnabled::Always);
    assert_eq!(
        (config.spiffe.socket_dir(), config.spiffe.trust_domain.as_str()),
        ("/run/spire", "example.org")
    );
    assert!(config.identity.required);
    assert_eq!(config.pod.fs_group, None);
    assert_eq!(config.sidecar, SidecarSettings { native: NativeSidecar::Always, probes: true });
    assert_eq!(config.sidecars, Sidecars { layout: Some(Layout::Split), uid: HelperUid::Uid(1000) });
    let quantities = |list: &Option<BTreeMap<String, Quantity>>| -> Vec<(String, String)> {
        list.iter().flatten().map(|(name, quantity)| (name.clone(), quantity.0.clone())).collect()
    };
    let pair = |name: &str, quantity: &str| (name.to_owned(), quantity.to_owned());
    assert_eq!(quantities(&config.resources.envoy_proxy.limits), [pair("cpu", "1"), pair("memory", "256Mi")]);
    assert_eq!(
        quantities(&config.resources.proxy_init.requests),
        [pair("cpu", "5m"), pair("memory", "10Mi")]
    );
    assert_eq!(quantities(&config.resources.authbridge.limits), [pair("memory", "384Mi")]);
    assert_eq!(
        quantities(&config.resources.spiffe_helper.limits),
        [pair("cpu", "100m"), pair("memory", "256Mi")]
    );
}

/// Webhook §7.1, the column "Validation".
#[rstest]
#[case("images: {authbridge: ''}", "images.authbridge: must not be empty")]
#[case("images: {authbridge: 3}", "images.authbridge: must be a string")]
#[case("images: {pullPolicy: always}", "images.pullPolicy: must be one of Always, IfNotPresent, Never")]
#[case("images: x", "images: must be a map")]
#[case("proxy: {port: 80}", "proxy.port: must be a port from 1024 to 65535")]
#[case("proxy: {adminPort: 65536}", "proxy.adminPort: must be a port from 1024 to 65535")]
#[case("proxy: {transparentPort: '8082'}", "proxy.transparentPort: must be a port from 1024 to 65535")]
#[case("proxy: {port: 15124}", "proxy.port, proxy.inboundProxyPort and proxy.adminPort must differ")]
#[case("proxy: {uid: 0}", "proxy.uid: must be an integer from 1")]
#[case(
    "proxy: {iptablesCmd: rm}",
    "proxy.iptablesCmd: must be one of \"\", iptables, iptables-nft, iptables-legacy"
)]
#[case("proxy: {allowedEgressEnforcement: []}", "proxy.allowedEgressEnforcement: must be a non-empty list")]
#[case("proxy: {allowedEgressEnforcement: null}", "proxy.allowedEgressEnforcement: must be a non-empty list")]
#[case(
    "proxy: {allowedEgressEnforcement: [none, open]}",
    "proxy.allowedEgressEnforcement: must be a non-empty list"
)]
#[case("proxy: {noProxy: ['a,b']}", "proxy.noProxy: must be a list of hosts")]
#[case("proxy: {noProxy: ['']}", "proxy.noProxy: must be a list of hosts")]
#[case(
    "resources: {authbridge: {limits: {cpu: lots}}}",
    "resources.authbridge.limits.cpu: must be a quantity"
)]
#[case("resources: {authbridge: {limits: {cpu: -1}}}", "resources.authbridge.limits.cpu: must be a quantity")]
#[case(
    "resources: {authbridge: {limits: {cpu: 50m}}}",
    "resources.authbridge: request cpu=100m is above limit 50m"
)]
#[case(
    "resources: {spiffeHelper: {requests: {memory: 1Gi}}}",
    "resources.spiffeHelper: request memory=1Gi is above limit 128Mi"
)]
#[case("spiffe: {socketPath: /run/x.sock}", "spiffe.socketPath: must be unix://")]
#[case("spiffe: {socketPath: 'unix:///x.sock'}", "spiffe.socketPath: must be unix://")]
#[case("spiffe: {socketPath: 'unix://run/x.sock'}", "spiffe.socketPath: must be unix://")]
#[case("spiffe: {enabled: true}", "spiffe.enabled: must be one of always, auto, never")]
#[case("identity: {required: yes}", "identity.required: must be true or false")]
#[case("pod: {fsGroup: -1}", "pod.fsGroup: must be an integer from 0")]
#[case("sidecar: {native: maybe}", "sidecar.native: must be one of never, auto, always")]
#[case("sidecars: {layout: both}", "sidecars.layout: must be one of combined, split")]
#[case("sidecars: {uid: 0}", "sidecars.uid: must be an integer from 1")]
#[case("[1]", "the root must be a map")]
fn invalid_values(#[case] text: &str, #[case] expected: &str) {
    let problems = problems(text);
    assert!(problems.len() == 1 && problems[0].starts_with(expected), "{problems:?}");
}

#[test]
fn all_problems_are_reported_at_once() {
    assert_eq!(problems("images: {authbridge: ''}\nproxy: {uid: 0}\n").len(), 2);
    assert!(matches!(PlatformConfig::parse("a: ["), Err(PlatformConfigError::Yaml(_))));
}

/// Unknown keys are accepted but reported; split §3: some are unused in layout combined.
#[rstest]
#[case("images: {authbridgeLight: x}", &["images.authbridgeLight: unknown key, ignored"])]
#[case("future: {a: 1}", &["future: unknown key, ignored"])]
#[case("tokenExchange: {other: 1}", &["tokenExchange.other: unknown key, ignored"])]
#[case("images: {spiffeHelper: x}", &["images.spiffeHelper: only used in layout split"])]
#[case("images: {spiffeHelper: x}\nsidecars: {layout: split}", &[])]
#[case("resources: {clientRegistration: {}}", &["resources.clientRegistration: only used in layout split"])]
#[case("sidecars: {spiffeHelper: {enabled: false}}", &["sidecars.spiffeHelper.enabled: has no effect, use the feature gate"])]
fn ignored_keys(#[case] text: &str, #[case] expected: &[&str]) {
    assert_eq!(parse(text).ignored, expected);
}

#[rstest]
#[case("1", 1_000_000_000)]
#[case("1.5", 1_500_000_000)]
#[case(".5", 500_000_000)]
#[case("50m", 50_000_000)]
#[case("1u", 1_000)]
#[case("64Mi", 67_108_864_000_000_000)]
#[case("1k", 1_000_000_000_000)]
#[case("1e3", 1_000_000_000_000)]
#[case("1E", 1_000_000_000_000_000_000_000_000_000)]
#[case("-2", -2_000_000_000)]
fn quantities(#[case] text: &str, #[case] nanos: i128) {
    assert_eq!(parse_quantity(text), Some(nanos));
}

#[rstest]
#[case("")]
#[case("m")]
#[case("1.2.3")]
#[case("1 Mi")]
#[case("1mi")]
#[case("-")]
#[case("1e")]
fn not_quantities(#[case] text: &str) {
    assert_eq!(parse_quantity(text), None);
}
