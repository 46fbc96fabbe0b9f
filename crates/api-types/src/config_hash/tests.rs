use rstest::rstest;

use super::*;

fn data(pairs: &[(&str, &str)]) -> Data {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// The vectors of runtime §5.1.
#[rstest]
#[case(&[], &[], "", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a")]
#[case(&[], &[("trace.endpoint", "http://otel-collector.observability:4317")], "", "ba2e59d874f7692965488d52322a74bc9b35a54e3cc414425df837529ba957ae")]
#[case(&[("feature-gates.yaml", "globalEnabled: true\n")], &[("b", "2"), ("a", "1")], "", "269eb6bb70f9d8c761f9b0187e982d14f4edee352b06654411d3e20623416e2f")]
#[case(&[], &[("k", "<a & b>")], "mode: proxy-sidecar\n", "9037649d25699093d5e01a8562fc7d4968d473037dafe5f0a40016de177a6147")]
#[case(&[], &[], "mode: proxy-sidecar\n# \u{2028} \"q\" \\ \t é\n", "102768948771d9adb3ba48f4235dcb3e3b2d89103668554e26944fb5f4a706f8")]
fn v1_is_the_hash_of_the_previous_operator(
    #[case] gates: &[(&str, &str)],
    #[case] defaults: &[(&str, &str)],
    #[case] runtime: &str,
    #[case] expected: &str,
) {
    assert_eq!(v1(&data(gates), &data(defaults), &Data::new(), runtime), expected);
    assert_eq!(v1(&data(gates), &Data::new(), &data(defaults), runtime), expected);
}

#[test]
fn v1_overlays_whole_keys() {
    let merged = v1(&Data::new(), &data(&[("a", "3"), ("b", "2"), ("c", "1")]), &Data::new(), "");
    assert_eq!(
        v1(&Data::new(), &data(&[("a", "1"), ("b", "2")]), &data(&[("a", "3"), ("c", "1")]), ""),
        merged
    );
}

#[test]
fn v1_escapes_control_characters_in_four_lower_case_digits() {
    let mut json = String::new();
    v1_string(&mut json, "\u{1}\u{8}\u{c}\u{1f}\u{7f}\r/");
    assert_eq!(json, "\"\\u0001\\b\\f\\u001f\u{7f}\\r/\"");
}

/// Runtime §5.4: each of the 8 combinations, for each labelled ConfigMap.
#[test]
fn v1_candidates_are_all_combinations_for_each_overlay() {
    let (gates, platform) = (data(&[("g", "1")]), data(&[("p", "1")]));
    let (a, b) = (data(&[("x", "1")]), data(&[("x", "2")]));
    let empty = Data::new();
    assert_eq!(v1_candidates(&gates, &platform, &[], "r").len(), 8);
    let both = v1_candidates(&gates, &platform, &[&a, &b], "r");
    assert_eq!(both.len(), 16);
    for (g, p, o, r) in [
        (&gates, &platform, &a, "r"),
        (&empty, &platform, &b, ""),
        (&gates, &empty, &b, "r"),
        (&empty, &empty, &a, ""),
    ] {
        assert!(both.contains(&v1(g, p, o, r)));
    }
    assert_eq!(both, v1_candidates(&gates, &platform, &[&b, &a], "r"), "independent of the order");
    assert_eq!(v1_candidates(&empty, &empty, &[], ""), [v1(&empty, &empty, &empty, "")]);
}

fn hash_of(runtime: &str) -> HashResult {
    let map = data(&[("config.yaml", runtime)]);
    v2(&HashInputs { authbridge_runtime: Some(&map), ..HashInputs::default() })
}

#[test]
fn v2_has_the_documented_canonical_form() {
    assert_eq!(v2(&HashInputs::default()).hash, hex::encode(Sha256::digest("{\"v\":2}")));
    let runtime =
        data(&[("config.yaml", "mode: lite\na: [1, 1.5, x, null, true]\n"), ("note", "mode: lite")]);
    let gates = data(&[("feature-gates.yaml", "skillDiscovery: true\nenvoyProxy: false\n")]);
    let result = v2(&HashInputs {
        authbridge_runtime: Some(&runtime),
        feature_gates: Some(&gates),
        platform: Some(&Data::new()),
        ..HashInputs::default()
    });
    let form = concat!(
        "{\"v\":2,\"authbridgeRuntime\":{\"config.yaml\":{\"a\":[1,1.5,\"x\",null,true],\"mode\":\"lite\"},",
        "\"note\":\"mode: lite\"},\"featureGates\":{\"feature-gates.yaml\":{\"envoyProxy\":false}}}"
    );
    assert_eq!(result, HashResult { hash: hex::encode(Sha256::digest(form)), warnings: vec![] });
}

/// Scenario 12: insignificant edits do not restart anything.
#[rstest]
#[case::comment("# hello\nmode: lite\nmtls: {mode: strict}\n")]
#[case::order("mtls:\n  mode: strict\nmode: lite\n")]
#[case::quotes("'mode': \"lite\"\nmtls: {'mode': strict}\n")]
#[case::white_space("\n\nmode:   lite\nmtls:\n      mode: strict\n\n")]
fn v2_ignores_the_form_of_yaml(#[case] edited: &str) {
    assert_eq!(hash_of(edited), hash_of("mode: lite\nmtls: {mode: strict}\n"));
}

#[rstest]
#[case::value("mode: envoy-sidecar\nmtls: {mode: strict}\n")]
#[case::removed("mode: lite\n")]
#[case::string_or_number("mode: lite\nmtls: {mode: strict}\nx: '1'\n")]
#[case::list_order("mode: lite\nmtls: {mode: strict}\nl: [2, 1]\n")]
fn v2_follows_the_meaning_of_yaml(#[case] edited: &str) {
    let others = [
        "mode: lite\nmtls: {mode: strict}\n",
        "mode: lite\nmtls: {mode: strict}\nx: 1\n",
        "mode: lite\nmtls: {mode: strict}\nl: [1, 2]\n",
    ];
    for other in others {
        assert_ne!(hash_of(edited).hash, hash_of(other).hash);
    }
}

/// Runtime §5.2 point 4: no pod reads the gate `skillDiscovery`.
#[rstest]
#[case("skillDiscovery: true\n", "")]
#[case("skillDiscovery: true\ninjectTools: true\n", "injectTools: true\nskillDiscovery: false\n")]
fn v2_ignores_skill_discovery(#[case] a: &str, #[case] b: &str) {
    let of = |text: &str| {
        let gates = data(&[("feature-gates.yaml", text)]);
        v2(&HashInputs { feature_gates: Some(&gates), ..HashInputs::default() })
    };
    assert_eq!(of(a), of(b));
}

#[test]
fn v2_compares_broken_yaml_as_text_and_says_so() {
    let (a, b) = (hash_of("mode: ["), hash_of("mode: [ "));
    assert_ne!(a.hash, b.hash);
    assert_eq!(a.hash.len(), 64);
    assert_eq!(a.warnings.len(), 1);
    assert!(
        a.warnings[0].starts_with("ConfigMap authbridge-runtime-config, key config.yaml: not valid YAML: "),
        "{:?}",
        a.warnings
    );
}

/// Runtime §5.3 and scenario 13: the first by name, one warning, `authbridge-config` does not count.
#[test]
fn v2_chooses_one_defaults_config_map() {
    let (a, b, own) = (data(&[("k", "a")]), data(&[("k", "b")]), data(&[("k", "own")]));
    let entry = |name, data| NamedData { name, data };
    let of = |list: &[NamedData<'_>]| {
        v2(&HashInputs { namespace: "team1", labelled_defaults: list, ..HashInputs::default() })
    };
    let one = of(&[entry("a", &a)]);
    assert!(one.warnings.is_empty());
    let two = of(&[entry("b", &b), entry("authbridge-config", &own), entry("a", &a)]);
    assert_eq!(two.hash, one.hash);
    assert_eq!(
        two.warnings,
        ["multiple namespace defaults ConfigMaps found in team1 (expected at most one): [a b]; using a"
            .to_owned()]
    );
    assert_eq!(of(&[entry("authbridge-config", &own)]), of(&[]));
}

/// Every input of runtime §5.3 counts, also its creation.
#[test]
fn v2_sees_every_input() {
    let map = data(&[("k", "v")]);
    let some = Some(&map);
    let named = [NamedData { name: "d", data: &map }];
    let none = HashInputs::default();
    let all = [
        none,
        HashInputs { feature_gates: some, ..none },
        HashInputs { platform: some, ..none },
        HashInputs { labelled_defaults: &named, ..none },
        HashInputs { authbridge_config: some, ..none },
        HashInputs { authbridge_runtime: some, ..none },
        HashInputs { spiffe_helper: some, ..none },
        HashInputs { authproxy_routes: some, ..none },
        HashInputs { envoy: some, ..none },
    ];
    let mut hashes: Vec<String> = all.iter().map(|inputs| v2(inputs).hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), all.len());
}
