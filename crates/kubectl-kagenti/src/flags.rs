//! The argument list of the previous operator, flag by flag.

use serde_json::Value;

use crate::table::Flags;

/// What a flag became.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Became {
    /// Nothing, and why.
    Nothing(&'static str),
    /// A value of its own.
    Key(String, Value),
    /// An argument of a component.
    Argument(String, String),
    /// It has no place, and why.
    NoPlace(&'static str),
}

/// Each flag as it was written, with what it became. `--flag value` counts as `--flag=value`, as the render check has it.
pub(crate) fn became(flags: &Flags, args: &[Value]) -> Vec<(String, Became)> {
    let mut joined: Vec<String> = Vec::new();
    for arg in args.iter().map(text) {
        match joined.last_mut() {
            Some(flag) if !arg.starts_with('-') => {
                flag.push('=');
                flag.push_str(&arg);
            }
            _ => joined.push(arg),
        }
    }
    let became = |flag: &String| one(flags, flag);
    joined.iter().map(|flag| (flag.clone(), became(flag))).collect()
}

fn one(flags: &Flags, flag: &str) -> Became {
    let (name, value) = flag.split_once('=').unwrap_or((flag, "true"));
    let name = name.strip_prefix('-').unwrap_or(name);
    let name = name.strip_prefix('-').unwrap_or(name);
    let own = |pattern: &String| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    };
    if flags.dropped.iter().any(own) {
        Became::Nothing("the chart sets it itself")
    } else if let Some(key) = flags.keys.get(name) {
        let value = match value {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            text => Value::String(text.to_owned()),
        };
        Became::Key(key.clone(), value)
    } else if let Some(owner) = flags.owners.get(name) {
        Became::Argument(owner.clone(), format!("--{name}={value}"))
    } else if !flags.refused.iter().any(|refused| refused == name) {
        Became::NoPlace("this flag is not known")
    } else if value == "false" {
        Became::Nothing("off, and not built")
    } else {
        Became::NoPlace("this is not built")
    }
}

/// An item of the list as a text.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::table::Table;

    fn key(path: &str, value: Value) -> Became {
        Became::Key(path.to_owned(), value)
    }

    #[rstest]
    #[case::bare(json!(["--leader-elect"]), "--leader-elect", Became::Nothing("the chart sets it itself"))]
    #[case::pattern(json!(["--webhook-cert-path=/x"]), "--webhook-cert-path=/x", Became::Nothing("the chart sets it itself"))]
    #[case::one_dash(json!(["-metrics-secure=false"]), "-metrics-secure=false", Became::Nothing("the chart sets it itself"))]
    #[case::key(json!(["--keycloak-realm=a=b"]), "--keycloak-realm=a=b", key("client-registration-ctl.keycloak.realm", json!("a=b")))]
    #[case::two_words(json!(["--keycloak-realm", "a"]), "--keycloak-realm=a", key("client-registration-ctl.keycloak.realm", json!("a")))]
    #[case::boolean(json!(["--enable-mlflow"]), "--enable-mlflow", key("mlflow-ctl.enabled", json!(true)))]
    #[case::off(json!(["--enable-verified-fetch", false]), "--enable-verified-fetch=false", key("card-ctl.verifiedFetch.enabled", json!(false)))]
    #[case::owner(json!(["-propagate-defaults"]), "-propagate-defaults", Became::Argument("runtime-ctl".to_owned(), "--propagate-defaults=true".to_owned()))]
    #[case::refused_off(json!(["--enable-kuadrant=false"]), "--enable-kuadrant=false", Became::Nothing("off, and not built"))]
    #[case::refused(json!(["--enable-kuadrant"]), "--enable-kuadrant", Became::NoPlace("this is not built"))]
    #[case::unknown(json!(["--frobnicate", 7]), "--frobnicate=7", Became::NoPlace("this flag is not known"))]
    #[case::no_flag(json!(["manager"]), "manager", Became::NoPlace("this flag is not known"))]
    #[case::dashes(json!(["--"]), "--", Became::NoPlace("this flag is not known"))]
    fn each_flag(#[case] args: Value, #[case] written: &str, #[case] expected: Became) {
        let flags = Table::built_in().expect("built in").flags;
        let args = args.as_array().expect("a list");
        assert_eq!(became(&flags, args), [(written.to_owned(), expected)]);
    }
}
