//! What holds for every values file.

use kubectl_kagenti::document;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::{converted, lines, table};

/// Something that could stand in a values file.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z0-9 :=/.-]{0,12}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!("--leader-elect")),
        Just(json!("--enable-mlflow=true")),
        Just(json!("ghcr.io/x/kagenti-operator")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-zA-Z.-]{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Old keys, new keys and others, at any depth, with any value.
fn values() -> impl Strategy<Value = Value> {
    let table = table();
    let mut paths: Vec<String> = table.rows.iter().map(|row| row.old.clone()).collect();
    paths.extend(table.rows.iter().flat_map(|row| &row.new).filter(|path| !path.starts_with('<')).cloned());
    paths.extend(table.keys.iter().cloned());
    paths
        .extend(["controllerManager", "keycloak", "signatureVerification", "unknown", ""].map(str::to_owned));
    prop::collection::vec((prop::sample::select(paths), value()), 0..8).prop_map(|settings| {
        let mut values = document::Yaml::new();
        for (path, value) in settings {
            let one = path
                .rsplit('.')
                .fold(value, |below, key| Value::Object(Map::from_iter([(key.to_owned(), below)])));
            if let Value::Object(one) = one {
                document::merge(&mut values, one);
            }
        }
        Value::Object(values)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Nothing old is left, and a second conversion changes nothing and says nothing.
    #[test]
    fn converting_twice_changes_nothing(values in values()) {
        let once = converted(&values);
        for key in once.values.keys() {
            prop_assert!(table().keys.contains(key), "{key}");
        }
        let twice = converted(&Value::Object(once.values.clone()));
        prop_assert_eq!(&twice.values, &once.values);
        prop_assert_eq!(lines(&twice), Vec::<String>::new());
    }

    /// What is printed is what was meant.
    #[test]
    fn what_is_printed_is_read_again(values in values()) {
        let once = converted(&values);
        let written = document::write(&once.values);
        prop_assert_eq!(document::read(&written), Ok(once.values), "{}", written);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(?s).{0,200}") {
        if let Ok(values) = document::read(&text) {
            converted(&Value::Object(values));
        }
    }

    #[test]
    fn any_yaml_is_read_or_refused(text in "([a-c]{1,2}|[ \\n:{}\\[\\],&*!|>'\"#%@~?-]|\\n  ){0,40}") {
        if let Ok(values) = document::read(&text) {
            converted(&Value::Object(values));
        }
    }
}
