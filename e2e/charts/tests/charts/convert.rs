//! `kubectl kagenti values convert`: what it prints is what the charts take (packaging §4, scenario 16).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use chart_tests::{Helm, Objects, UMBRELLA, charts, text};
use kubectl_kagenti::convert::{Converted, convert};
use kubectl_kagenti::table::Table;
use kubectl_kagenti::{document, set};
use rstest::rstest;
use serde_json::{Value, json};

use crate::legacy::{another, put, table, with_values};

fn converted(values: &Value) -> Result<Converted> {
    Ok(convert(&Table::built_in()?, values.as_object().context("a map")?.clone()))
}

/// The old file of the scenario: one flag more than the default list, and a value of each kind.
fn scenario() -> Value {
    json!({
        "controllerManager": {"container": {"args": [
            "--leader-elect", "--metrics-bind-address=:8443", "--health-probe-bind-address=:8081", "--enable-istio-mesh=false",
        ]}},
        "keycloak": {"publicUrl": "https://id.example.com"},
        "signatureVerification": {"spireTrustDomain": "example.org"},
        "mlflow": {"enable": true},
        "featureGates": {"injectTools": true},
        "defaults": {"images": {"authbridge": "registry.example.com/authbridge:1"}},
    })
}

fn rows() -> Result<Vec<Value>> {
    Ok(table()?["rows"].as_array().context("rows")?.clone())
}

/// All rows but some, each with another value than its default.
fn old_values(without: &[&str]) -> Result<Value> {
    let mut values = json!({});
    for row in rows()? {
        let old = row["old"].as_str().context("a path")?;
        if !without.contains(&old) && row.get("any").is_none() {
            put(&mut values, old, another(old, &row["default"]));
        }
    }
    Ok(values)
}

/// What the rules of the chart ask for besides: a namespace of the bundle, and enforcement that is meant during an audit.
const RULES: &[&str] = &[
    "--set=card-ctl.signatureVerification.spireTrustBundle.configMapNamespace=spire",
    "--set=netpol-ctl.enforceDuringAudit=true",
];

/// Every row at once; and without those that switch off what the others are about.
#[rstest]
#[case::all(&[])]
#[case::all_on(&["webhook.enable", "rbac.enable", "metrics.enable", "crd.enable", "crd.keep"])]
fn packaging_16_what_the_plugin_makes_of_every_row_renders(#[case] without: &[&str]) -> Result<()> {
    let converted = converted(&old_values(without)?)?;
    let refused = rows()?.into_iter().filter(|row| row.get("refuse").is_some()).count();
    let lost: Vec<_> = converted.remarks.iter().filter(|remark| remark.lost).collect();
    assert_eq!(lost.len(), refused, "{lost:?}");
    let objects = with_values(&Value::Object(converted.values), RULES)?.map_err(anyhow::Error::msg)?;
    if without.is_empty() {
        return Ok(());
    }
    for (deployment, flag, value) in [
        ("kagenti-client-registration-ctl", "keycloak-realm", "other"),
        ("kagenti-client-registration-ctl", "client-auth-type", "federated-jwt"),
        ("kagenti-card-ctl", "require-a2a-signature", "true"),
        ("kagenti-card-ctl", "signature-audit-mode", "true"),
        ("kagenti-mlflow-ctl", "mlflow-workspace", "other"),
        ("kagenti-netpol-ctl", "enforce-network-policies", "true"),
    ] {
        assert_eq!(objects.flag(deployment, flag)?, value, "{deployment}");
    }
    for deployment in objects.of("Deployment") {
        let name = text(deployment, "/metadata/name");
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["livenessProbe"]["periodSeconds"], 33, "{name}");
        assert!(text(container, "/image").starts_with("registry.example.com/mirror/"), "{name}");
        let replicas = if name == "kagenti-authbridge-webhook" { 2 } else { 7 };
        assert_eq!(deployment["spec"]["replicas"], replicas, "{name}");
        let env = container["env"].as_array().context("env")?;
        assert!(env.contains(&json!({"name": "A", "value": "b"})), "{name}");
    }
    let account = objects.named("ServiceAccount", "other")?;
    assert_eq!(account["metadata"]["annotations"]["other"], "value");
    Ok(())
}

/// The message of the render check and the plugin name the same new keys with the same values, row by row.
#[test]
fn packaging_16_the_render_check_and_the_plugin_agree() -> Result<()> {
    let mut values = old_values(&["controllerManager.container.args"])?;
    let args = [
        "--keycloak-realm=other",
        "--enable-mlflow",
        "--mlflow-ca-file=/x",
        "-propagate-defaults",
        "--client-auth-type",
        "x=y",
    ];
    put(&mut values, "controllerManager.container.args", json!(args));
    put(&mut values, "controllerManager.container.env", json!({"B": "x", "A": 1, "C": true, "D": null}));
    let said = with_values(&values, &[])?.err().context("old values were rendered")?;
    let mut compared = 0;
    for row in rows()?.iter().filter(|row| row.get("any").is_none() && row.get("refuse").is_none()) {
        let old = row["old"].as_str().context("a path")?;
        let lines = said
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with(&format!("- {old}=")) || line.starts_with(&format!("- {old}:")));
        let named: BTreeSet<String> =
            lines.filter_map(|line| line.split_once("is now: ")).flat_map(|(_, new)| settings(new)).collect();
        let mut one = json!({});
        put(&mut one, old, pointed(&values, old).context("a value")?.clone());
        let mut written = Vec::new();
        leaves("", &Value::Object(converted(&one)?.values), &named, &mut written);
        assert_eq!(written.into_iter().collect::<BTreeSet<_>>(), named, "{old}: {said}");
        compared += named.len();
    }
    assert!(compared > 60, "{compared}");
    Ok(())
}

/// `a=1, b={..}` of the message, with values as JSON; `x.extraArgs={--flag=value}` is a list.
fn settings(text: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in text.split(", ") {
        let (path, value) = part.split_once('=').unwrap_or((part, ""));
        let value = match value.strip_prefix("{--") {
            Some(flag) => json!([format!("--{}", flag.trim_end_matches('}'))]),
            None => serde_json::from_str(value).unwrap_or_else(|_| json!(value)),
        };
        parts.push(format!("{path}={value}"));
    }
    parts
}

fn pointed<'a>(values: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(values, |node, key| node.get(key))
}

/// `path=json` of what was converted, as deep as the message goes; the items of `extraArgs` one by one.
fn leaves(path: &str, value: &Value, known: &BTreeSet<String>, into: &mut Vec<String>) {
    if path.ends_with("extraArgs") {
        into.extend(value.as_array().into_iter().flatten().map(|flag| format!("{path}={}", json!([flag]))));
        return;
    }
    let whole = format!("{path}={value}");
    match value {
        Value::Object(map) if !known.contains(&whole) => {
            for (key, value) in map {
                let dot = if path.is_empty() { "" } else { "." };
                leaves(&format!("{path}{dot}{key}"), value, known, into);
            }
        }
        _ => into.push(whole),
    }
}

#[test]
fn packaging_16_the_scenario_is_refused_once_and_renders_converted() -> Result<()> {
    let values = scenario();
    let said = with_values(&values, &[])?.err().context("rendered")?;
    let findings: Vec<&str> =
        said.lines().map(str::trim).filter_map(|line| line.strip_prefix("- ")).collect();
    let (command, findings) = findings.split_last().context("findings")?;
    assert_eq!(findings.len(), 4, "{said}");
    for line in [
        "controllerManager.container.args: --enable-istio-mesh=false is now: runtime-ctl.extraArgs=",
        "keycloak.publicUrl=\"https://id.example.com\" is now: client-registration-ctl.keycloak.publicUrl=",
        "signatureVerification.spireTrustDomain=\"example.org\" is now: global.spireTrustDomain=",
        "mlflow.enable=true is now: mlflow-ctl.enabled=true",
    ] {
        assert!(findings.iter().any(|finding| finding.starts_with(line)), "{line}: {said}");
    }
    assert!(command.ends_with("kubectl kagenti values convert -f old.yaml > new.yaml"), "{command}");

    let converted = converted(&values)?;
    assert!(!converted.is_lossy(), "{:?}", converted.remarks);
    let objects = with_values(&Value::Object(converted.values), &[])?.map_err(anyhow::Error::msg)?;
    assert_eq!(objects.args("kagenti-runtime-ctl")?.last(), Some(&"--enable-istio-mesh=false"));
    objects.named("Deployment", "kagenti-mlflow-ctl")?;
    let platform = objects.named("ConfigMap", "kagenti-platform-config")?.to_string();
    assert!(platform.contains("registry.example.com/authbridge:1"), "{platform}");
    for deployment in objects.of("Deployment") {
        let env = deployment["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
        let name = text(deployment, "/metadata/name");
        if name == "kagenti-client-registration-ctl" {
            assert!(env.contains("https://id.example.com"), "{env}");
        }
    }
    assert!(Value::from(objects.0).to_string().contains("example.org"));
    Ok(())
}

#[test]
fn packaging_16_nothing_is_left_of_the_old_defaults() -> Result<()> {
    let old = fs::read_to_string(charts().join("kagenti-operator/ci/existing-values.yaml"))?;
    let converted = converted(&Value::Object(document::read(&old)?))?;
    assert_eq!(Value::Object(converted.values.clone()), json!({}));
    assert!(!converted.is_lossy(), "{:?}", converted.remarks);
    Ok(())
}

/// `-o set` behind `helm template`, read by a shell, gives what the file gives.
#[test]
fn packaging_16_arguments_and_file_render_the_same() -> Result<()> {
    let values = json!({
        "controllerManager": {
            "replicas": 2,
            "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/a,b=c", "it's": "$HOME `x` \"y\" \\"}},
            "pod": {"labels": {"team": "a-b"}},
            "container": {"args": ["--enable-istio-mesh=false", "--tls-bridge-issuer=it's {a,b}"], "env": {"A_B": "x y=z,[1] \u{e9}"}},
        },
        "keycloak": {"publicUrl": "https://id.example.com/?a=b&c=d", "realm": "no"},
        "card-ctl": {"resources": {"limits": null}, "affinity": {}},
        "runtime-ctl": {"tolerations": [{"key": "a", "operator": "Exists"}]},
        "defaults": {"proxy": {"uid": 2000}, "spiffe": {"trustDomain": "off"}},
        "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a.b": "1\n2\n"}}],
    });
    let values = converted(&values)?.values;
    let helm = Helm::get()?;
    let file = tempfile::NamedTempFile::with_suffix(".yaml")?;
    fs::write(file.path(), document::write(&values))?;
    let from_file = helm.suite(&["-f", &file.path().display().to_string()])?;
    // The shell runs Helm as the user would: `"$@"` is the command, the text stands behind it.
    let chart = helm.path(UMBRELLA).display().to_string();
    let template = ["template", "kagenti-operator", &chart, "--namespace", "kagenti-system"];
    let command = helm.command(Path::new("/dev/null"), &template);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("\"$@\" {}", set::write(&values)), "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = shell.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let from_arguments = Objects::parse(&String::from_utf8_lossy(&output.stdout))?;
    assert_eq!(crate::difference(&from_file, &from_arguments), Vec::<String>::new());
    assert!(from_file.args("kagenti-runtime-ctl")?.contains(&"--tls-bridge-issuer=it's {a,b}"));
    Ok(())
}

/// A chart that prints its values, and one that has the umbrella as a dependency.
fn chart(dir: &Path, name: &str, dependency: Option<&Path>) -> Result<String> {
    let chart = dir.join(name);
    fs::create_dir_all(chart.join("templates"))?;
    let mut manifest = format!("apiVersion: v2\nname: {name}\nversion: 0.1.0\n");
    if let Some(dependency) = dependency {
        manifest
            .push_str("dependencies: [{name: kagenti-operator-chart, version: 0.1.0, repository: \"\"}]\n");
        let packed = chart.join("charts");
        fs::create_dir_all(&packed)?;
        std::os::unix::fs::symlink(dependency, packed.join("kagenti-operator-chart"))?;
    }
    fs::write(chart.join("Chart.yaml"), manifest)?;
    fs::write(
        chart.join("templates/values.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: values}\nvalues: {{ omit .Values \"global\" | toJson | quote }}\n",
    )?;
    Ok(chart.display().to_string())
}

/// What Helm takes for the values, with these files.
fn as_helm_reads(dir: &Path, files: &[&str]) -> Result<Value> {
    let chart = chart(dir, "printer", None)?;
    let mut args = vec!["template".to_owned(), "x".to_owned(), chart];
    for (n, file) in files.iter().enumerate() {
        let path = dir.join(format!("{n}.yaml"));
        fs::write(&path, file)?;
        args.extend(["-f".to_owned(), path.display().to_string()]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = Helm::get()?.run(&args)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let objects = Objects::parse(&String::from_utf8_lossy(&output.stdout))?;
    Ok(serde_json::from_str(text(objects.named("ConfigMap", "values")?, "/values"))?)
}

/// Older YAML, as Helm's: what stands in a file means the same to both, on the way in and on the way out.
#[test]
fn values_files_are_read_and_merged_as_helm_does() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let files = [
        "a: [yes, Yes, YES, y, Y, on, On, ON, no, n, N, off, Off, true, True, TRUE, ~, null, Null, NULL, ''] # switches\n\
         b: [0777, 0o17, 0x1F, 1_000, 1.5e-1, .5, +1, 1.50, -0.0, '0777', \"1\"]\n\
         c: [2001-01-01, 1.2.3, 1:30, v1, a b, =, '<<', {}, []]\n\
         d: &d {x: 1}\ne: {<<: *d, z: 2}\nf: 1\nf: 2\n8080: port\ntrue: key\n\
         g: |\n  two\n  lines\nh: >-\n  fol\n  ded\n",
        "---\nd: {x: {k: v}}\nc: [only]\nnew: {deep: {er: 1}}\n",
        "# nothing but this\n",
        "new: {deep: {more: [1, {a: b}]}}\nf: {now: a map}\n",
    ];
    let mut ours = document::Yaml::new();
    for file in files {
        document::merge(&mut ours, document::read(file)?);
    }
    assert_eq!(Value::Object(ours.clone()), as_helm_reads(dir.path(), &files)?);
    assert_eq!(Value::Object(ours.clone()), as_helm_reads(dir.path(), &[&document::write(&ours)])?);
    let texts = json!({"texts": [
        "yes", "y", "on", "0777", "0o17", "1_000", "1e3", ".5", "~", "null", "", " a ", "2001-01-01", "1:30", "=", "<<", "- a", "a: b", "#a",
        "line\nline\n", "\ttab", "\u{85}\u{2028}\u{7f}\u{1}", "'\"\\", "{a}", "[a]", "*a", "&a", "!a", "%a", "@a", "`a", "|", ">", "a #b", "é",
        "0x1F", "+1", "-", "?", ".inf", ".NaN", "0b1",
    ]});
    let written = document::write(texts.as_object().context("a map")?);
    assert_eq!(as_helm_reads(dir.path(), &[&written])?, texts, "{written}");
    Ok(())
}

/// Below a parent chart, where `global` of the suite stays the suite's.
#[test]
fn packaging_16_the_values_of_a_parent_chart_render() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let helm = Helm::get()?;
    let parent = chart(dir.path(), "platform", Some(&helm.path(UMBRELLA)))?;
    let mut below = scenario();
    put(&mut below, "controllerManager.pod.labels", json!({"team": "a"}));
    let old = json!({"replicas": 3, "global": {"storageClass": "fast"}, "kagenti-operator-chart": below});
    let render = |values: &Value| -> Result<Result<Objects, String>> {
        let file = dir.path().join("values.yaml");
        fs::write(&file, values.to_string())?;
        let file = file.display().to_string();
        let output = helm.run(&["template", "x", &parent, "-f", &file])?;
        if output.status.success() {
            return Ok(Ok(Objects::parse(&String::from_utf8_lossy(&output.stdout))?));
        }
        Ok(Err(String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let said = render(&old)?.err().context("rendered")?;
    assert!(said.contains("mlflow.enable=true is now: mlflow-ctl.enabled=true"), "{said}");
    let mut new = old.clone();
    new["kagenti-operator-chart"] = Value::Object(converted(&below)?.values);
    let objects = render(&new)?.map_err(anyhow::Error::msg)?;
    let runtime = objects.named("Deployment", "kagenti-runtime-ctl")?;
    assert_eq!(runtime["spec"]["template"]["metadata"]["labels"]["team"], "a");
    assert_eq!(objects.args("kagenti-runtime-ctl")?.last(), Some(&"--enable-istio-mesh=false"));
    Ok(())
}
