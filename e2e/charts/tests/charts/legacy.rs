//! Values of the previous chart: every row of files/legacy-values.yaml (packaging §4, scenario 16).

use anyhow::{Context as _, Result};
use chart_tests::{Helm, charts};
use serde_json::{Map, Value, json};

pub(crate) fn table() -> Result<Value> {
    let file = std::fs::read_to_string(charts().join("kagenti-operator/files/legacy-values.yaml"))?;
    serde_saphyr::from_str(&file).context("the table")
}

/// Puts `value` at a dotted path.
pub(crate) fn put(values: &mut Value, path: &str, value: Value) {
    let mut node = values;
    for key in path.split('.') {
        if !node.is_object() {
            *node = Value::Object(Map::new());
        }
        node = &mut node[key];
    }
    *node = value;
}

/// A value that differs from the old default and that the new key takes.
pub(crate) fn another(old: &str, default: &Value) -> Value {
    match (old, default) {
        (old, _) if old.ends_with("clientAuthType") => json!("federated-jwt"),
        (old, _) if old.ends_with("pullPolicy") => json!("Always"),
        (old, _) if old.ends_with("image.repository") => {
            json!("registry.example.com/mirror/kagenti-operator")
        }
        (old, _) if old.ends_with("publicUrl") => json!("https://id.example.com"),
        (old, _) if old.ends_with("Socket") => json!("unix:///spiffe-workload-api/other.sock"),
        (old, _) if old.ends_with("Period") || old.ends_with("Interval") || old.ends_with("Timeout") => {
            json!("7m")
        }
        (old, _) if old.ends_with("args") => json!(["--keycloak-realm=other"]),
        (old, _) if old.ends_with("env") => json!([{"name": "A", "value": "b"}]),
        (old, _) if old.ends_with("Probe") => json!({"periodSeconds": 33}),
        (_, Value::Bool(default)) => json!(!default),
        (_, Value::Number(_)) => json!(7),
        (_, Value::Object(_)) => json!({"other": "value"}),
        ("spiffe.enabled", _) => json!(true),
        _ => json!("other"),
    }
}

pub(crate) fn with_values(values: &Value, args: &[&str]) -> Result<Result<chart_tests::Objects, String>> {
    let file = tempfile::NamedTempFile::with_suffix(".yaml")?;
    std::fs::write(file.path(), values.to_string())?;
    let path = file.path().display().to_string();
    let mut all = vec!["-f", &path, "--api-versions=monitoring.coreos.com/v1"];
    all.extend(args);
    Ok(Helm::get()?.suite(&all).map_err(|refused| refused.0))
}

#[test]
fn packaging_16_the_old_defaults_render_as_no_values() -> Result<()> {
    let plain = Helm::get()?.suite(&[])?;
    let file = charts().join("kagenti-operator/ci/existing-values.yaml");
    let old = crate::rendered("kagenti-operator", &file)?;
    assert_eq!(crate::difference(&plain, &old), Vec::<String>::new());
    // Row by row, and as null.
    let (mut defaults, mut nulls) = (json!({}), json!({}));
    for row in table()?["rows"].as_array().context("rows")? {
        let old = row["old"].as_str().context("a path")?;
        if let Some(default) = row.get("default") {
            put(&mut defaults, old, default.clone());
        }
        if row.get("any").is_none() {
            put(&mut nulls, old, Value::Null);
        }
    }
    for values in [defaults, nulls] {
        let rendered = with_values(&values, &[])?.map_err(anyhow::Error::msg)?;
        assert_eq!(crate::difference(&plain, &rendered), Vec::<String>::new(), "{values}");
    }
    Ok(())
}

/// All rows at once: each is named with its new key, and what is said there renders.
#[test]
fn packaging_16_another_value_is_refused_and_what_it_became_renders() -> Result<()> {
    let rows = table()?;
    let rows: Vec<&Value> = rows["rows"].as_array().context("rows")?.iter().collect();
    let rows: Vec<&Value> = rows.into_iter().filter(|row| row.get("any").is_none()).collect();
    let mut values = json!({});
    for row in &rows {
        put(
            &mut values,
            row["old"].as_str().context("a path")?,
            another(row["old"].as_str().unwrap_or(""), &row["default"]),
        );
    }
    let said = with_values(&values, &[])?.err().context("old values were rendered")?;
    let mut settings: Vec<String> = Vec::new();
    for row in &rows {
        let old = row["old"].as_str().context("a path")?;
        let line = said
            .lines()
            .map(str::trim)
            .find(|line| line.starts_with(&format!("- {old}=")) || line.starts_with(&format!("- {old}:")));
        let line = line.with_context(|| format!("{old} is not named in {said}"))?;
        if row.get("refuse").is_some() {
            assert!(line.ends_with("remove it"), "{line}");
            continue;
        }
        let (_, new) = line.split_once("is now: ").with_context(|| line.to_owned())?;
        settings.extend(new.split(", ").map(str::to_owned));
    }
    assert!(settings.len() > rows.len() / 2, "{settings:?}");
    let args: Vec<String> = settings
        .iter()
        .map(|setting| {
            let (key, value) = setting.split_once('=').unwrap_or((setting, "null"));
            let json: Value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
            format!("--set-json={key}={json}")
        })
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let more = "--set=card-ctl.signatureVerification.spireTrustBundle.configMapNamespace=spire";
    let mut all =
        vec![more, "--set=netpol-ctl.enforceDuringAudit=true", "--api-versions=monitoring.coreos.com/v1"];
    all.extend(args);
    Helm::get()?.suite(&all)?;
    Ok(())
}

#[test]
fn packaging_16_flags_of_the_old_argument_list_find_their_owner() -> Result<()> {
    let args = json!([
        "--leader-elect",
        "--metrics-bind-address=:8443",
        "--health-probe-bind-address=:8081",
        "--enable-istio-mesh",
        "false",
        "--keycloak-realm=agents",
        "--enable-otel-bootstrap=false",
        "--frobnicate",
    ]);
    let values = json!({
        "controllerManager": {"container": {"args": args}},
        "keycloak": {"publicUrl": "https://id.example.com"},
        "signatureVerification": {"spireTrustDomain": "example.org"},
        "mlflow": {"enable": true},
        "featureGates": {"injectTools": true},
        "defaults": {"images": {"authbridge": "registry.example.com/authbridge:1"}},
    });
    let said = with_values(&values, &[])?.err().context("rendered")?;
    for line in [
        "--enable-istio-mesh=false is now: runtime-ctl.extraArgs={--enable-istio-mesh=false}",
        "--keycloak-realm=agents is now: client-registration-ctl.keycloak.realm=agents",
        "--frobnicate is not known",
        "keycloak.publicUrl=\"https://id.example.com\" is now: client-registration-ctl.keycloak.publicUrl",
        "signatureVerification.spireTrustDomain=\"example.org\" is now: global.spireTrustDomain",
        "mlflow.enable=true is now: mlflow-ctl.enabled=true",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    for fine in ["leader-elect", "metrics-bind-address", "otel-bootstrap", "injectTools", "authbridge:1"] {
        assert!(!said.contains(fine), "{fine}: {said}");
    }
    Ok(())
}

#[test]
fn a_key_that_was_never_there_is_named() -> Result<()> {
    let said = with_values(&json!({"controllerManager": {"replica": 2}}), &[])?.err().context("rendered")?;
    assert!(said.contains("controllerManager.replica: there is no such value"), "{said}");
    Ok(())
}
