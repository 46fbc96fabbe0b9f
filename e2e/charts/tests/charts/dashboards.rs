//! Dashboards and alerts ask for what the programs export (packaging §11).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use chart_tests::{COMPONENTS, Helm, Objects, charts, deploy, text};
use serde_json::Value;

const NAMES: [&str; 3] = ["admission", "agents", "suite"];
const ALL_ON: &str = "--set=global.prometheus.skipApiCheck=true,dashboards.enabled=true,prometheusRule.enabled=true,netpol-ctl.enabled=true,\
                      netpol-ctl.enforceNetworkPolicies=false,mlflow-ctl.enabled=true";
/// What Prometheus adds to every sample.
const OF_PROMETHEUS: [&str; 4] = ["namespace", "job", "pod", "le"];

/// The dashboards as a cluster gets them, and every question of a dashboard or an alert: expression and legend.
fn questions() -> Result<Vec<(String, String)>> {
    let objects = Helm::get()?.suite(&[ALL_ON])?;
    let mut all = Vec::new();
    for name in NAMES {
        let map = objects
            .named("ConfigMap", &format!("kagenti-operator-kagenti-operator-chart-dashboard-{name}"))?;
        let board: Value = serde_json::from_str(text(map, &format!("/data/kagenti-{name}.json")))?;
        let panels = board["panels"].as_array().context("panels")?;
        let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
        all.extend(targets.map(|t| (text(t, "/expr").to_owned(), text(t, "/legendFormat").to_owned())));
        let values = board["templating"]["list"].as_array().context("variables")?.iter();
        let values = values.map(|variable| text(variable, "/query/query")).filter(|query| !query.is_empty());
        let values = values.filter_map(|query| query.strip_prefix("label_values(")?.rsplit_once(','));
        all.extend(values.map(|(metric, _)| (metric.to_owned(), String::new())));
    }
    let rules = objects.of("PrometheusRule").next().context("alerts")?;
    let rules = rules["spec"]["groups"][0]["rules"].as_array().context("rules")?;
    all.extend(rules.iter().map(|rule| {
        let summary = text(rule, "/annotations/summary").replace("$labels.", "");
        (text(rule, "/expr").to_owned(), summary)
    }));
    Ok(all)
}

/// Metrics of an expression, and labels by which it chooses or groups. The language has few words that are neither.
fn parsed(expression: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut metrics, mut labels) = (BTreeSet::new(), BTreeSet::new());
    let mut rest = expression;
    let mut grouping = false;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || "_{[\"".contains(c)) {
        let from = &rest[start..];
        let length = match from.as_bytes()[0] {
            b'{' => {
                let inside = from[1..].split('}').next().unwrap_or_default();
                let names = inside.split(',').filter_map(|part| part.split(['=', '!']).next());
                labels.extend(names.map(|name| name.trim().to_owned()));
                inside.len() + 2
            }
            b'[' => from.find(']').map_or(from.len(), |end| end + 1),
            b'"' => from[1..].find('"').map_or(from.len(), |end| end + 2),
            _ => {
                let end = from.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(from.len());
                let (word, after) = (&from[..end], from[end..].trim_start());
                match word {
                    "by" => grouping = true,
                    "or" | "and" | "unless" => {}
                    _ if grouping => drop(labels.insert(word.to_owned())),
                    _ if after.starts_with('(') || after.starts_with("by ") => {}
                    _ => drop(metrics.insert(word.to_owned())),
                }
                if grouping && after.starts_with(')') {
                    grouping = false;
                }
                end
            }
        };
        rest = &rest[start + length..];
    }
    (metrics, labels)
}

/// Metrics in the tables of the documentation, with their labels. That they are registered is checked by crate xtask.
fn documented() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(charts().join("../docs"))? {
        let page = std::fs::read_to_string(entry?.path())?;
        let cells = page.lines().filter(|line| line.starts_with("| `")).filter_map(|l| l.split('|').nth(1));
        for name in cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)) {
            let (metric, labels) = name.split_once('{').unwrap_or((name, ""));
            let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
            all.insert(metric.to_owned(), labels.map(|label| label.trim().to_owned()).collect());
        }
    }
    Ok(all)
}

fn sources(folder: &Path, into: &mut String) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, into)?;
        } else {
            into.push_str(&std::fs::read_to_string(&path).unwrap_or_default());
        }
    }
    Ok(())
}

#[test]
fn expressions_are_taken_apart() {
    let (metrics, labels) = parsed(
        r#"histogram_quantile(0.99, sum by (le, kind) (rate(a_seconds_bucket{x=~"b|c", y!="d{e"}[5m]))) / max(f) > 7"#,
    );
    assert_eq!(metrics.into_iter().collect::<Vec<_>>(), ["a_seconds_bucket", "f"]);
    assert_eq!(labels.into_iter().collect::<Vec<_>>(), ["kind", "le", "x", "y"]);
}

/// No question is about a metric or a label that no program has.
#[test]
fn packaging_15_dashboards_and_alerts_ask_for_what_is_exported() -> Result<()> {
    let documented = documented()?;
    let mut code = String::new();
    for entry in std::fs::read_dir(charts().join("../crates"))? {
        let folder = entry?.path().join("src");
        if folder.is_dir() {
            sources(&folder, &mut code)?;
        }
    }
    let mut seen = BTreeSet::new();
    for (expression, legend) in questions()? {
        let (metrics, labels) = parsed(&expression);
        ensure!(!metrics.is_empty(), "{expression}");
        let mut known: BTreeSet<&str> = OF_PROMETHEUS.into();
        for metric in &metrics {
            seen.insert(metric.clone());
            if metric == "up" {
                continue;
            }
            let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| metric.strip_suffix(end));
            let family = histogram.unwrap_or(metric);
            let of_family = documented.get(family);
            known.extend(
                of_family
                    .with_context(|| format!("no page documents {family}: {expression}"))?
                    .iter()
                    .map(String::as_str),
            );
            // Counters are registered without the end that the exposition adds.
            let literal = format!("\"{}\"", family.strip_suffix("_total").unwrap_or(family));
            ensure!(code.contains(&literal), "no program registers {literal}: {expression}");
        }
        for label in &labels {
            ensure!(known.contains(label.as_str()), "{label} is no label of {metrics:?}: {expression}");
        }
        for name in legend.split("{{").skip(1).filter_map(|part| part.split("}}").next()) {
            // Without grouping every label of the metric is left.
            let left = !expression.contains("by (") && known.contains(name.trim());
            ensure!(left || labels.contains(name.trim()), "the legend {legend} needs {name}: {expression}");
        }
    }
    assert!(seen.len() > 30, "{seen:?}");
    Ok(())
}

/// Nobody says that nobody leads when every replica is gone, so that alert is about absence: one for each Lease that a
/// component of the release may take.
#[test]
fn packaging_15_an_alert_for_every_lease() -> Result<()> {
    let helm = Helm::get()?;
    let on = |set: &str| Ok::<_, anyhow::Error>(helm.suite(&[ALL_ON, set])?);
    let alerts = |objects: &Objects| -> Result<BTreeSet<String>> {
        let rules = objects.of("PrometheusRule").next().context("alerts")?;
        let rules = rules["spec"]["groups"][0]["rules"].as_array().context("rules")?;
        let of_leaders = rules.iter().filter(|rule| text(rule, "/alert") == "KagentiNoLeader");
        let mut leases = BTreeSet::new();
        for rule in of_leaders {
            let lease = text(rule, "/labels/name");
            let sample =
                format!("leader_election_master_status{{namespace=\"kagenti-system\", name=\"{lease}\"}}");
            assert_eq!(text(rule, "/expr"), format!("absent({sample} == 1)"));
            assert!(leases.insert(lease.to_owned()), "twice: {lease}");
        }
        Ok(leases)
    };
    let objects = on("--set=card-ctl.watchNamespaces={team2,team1}")?;
    let mut leases = BTreeSet::new();
    for role in objects.of("Role") {
        for rule in role["rules"].as_array().into_iter().flatten() {
            let named = rule["resourceNames"].as_array().into_iter().flatten().filter_map(Value::as_str);
            leases.extend(
                named
                    .filter(|name| name.contains("-ctl.kagenti.dev") || name.contains("-webhook.kagenti.dev"))
                    .map(str::to_owned),
            );
        }
    }
    assert_eq!((leases.len(), alerts(&objects)?), (COMPONENTS.len(), leases));

    // Who elects nobody, tells nobody, or is not there, is not missed.
    let set = "--set=card-ctl.leaderElection.enabled=false,mlflow-ctl.metrics.enabled=false,runtime-ctl.enabled=false";
    let left =
        ["authbridge-webhook.kagenti.dev", "client-registration-ctl.kagenti.dev", "netpol-ctl.kagenti.dev"];
    assert_eq!(alerts(&on(set)?)?, left.map(str::to_owned).into());
    Ok(())
}

/// One ConfigMap per dashboard, found by the labels of Grafana's sidecar; the same files for everybody else.
#[test]
fn dashboards_are_there_when_they_are_asked_for() -> Result<()> {
    let helm = Helm::get()?;
    let label = |set: &[&str]| -> Result<Vec<String>> {
        let objects = helm.suite(set)?;
        let maps = objects.of("ConfigMap").filter(|map| text(map, "/metadata/name").contains("-dashboard-"));
        maps.map(|map| {
            let labels = map["metadata"]["labels"].as_object().context("labels")?;
            Ok(["grafana_dashboard", "folder"]
                .iter()
                .filter_map(|key| labels.get(*key)?.as_str())
                .collect::<Vec<_>>()
                .join(" "))
        })
        .collect()
    };
    assert_eq!(label(&[])?, Vec::<String>::new());
    assert_eq!(label(&["--set=dashboards.enabled=true"])?, ["1", "1", "1"]);
    let own = [
        "--set=dashboards.enabled=true",
        "--set=dashboards.labels.grafana_dashboard=null,dashboards.labels.folder=ai",
    ];
    assert_eq!(label(&own)?, ["ai", "ai", "ai"]);

    let objects = helm.suite(&[ALL_ON])?;
    for name in NAMES {
        let file = std::fs::read_to_string(deploy::folder().join(format!("dashboards/{name}.json")))?;
        let map = objects
            .named("ConfigMap", &format!("kagenti-operator-kagenti-operator-chart-dashboard-{name}"))?;
        assert_eq!(text(map, &format!("/data/kagenti-{name}.json")), file, "{name}");
        let board: Value = serde_json::from_str(&file)?;
        let mut places = BTreeSet::new();
        for panel in board["panels"].as_array().context("panels")? {
            let place = |key: &str| panel["gridPos"][key].as_u64().unwrap_or(99);
            ensure!(place("x") + place("w") <= 24, "{name}: {panel}");
            ensure!(places.insert((place("x"), place("y"))), "{name}: two panels at one place: {panel}");
        }
    }
    Ok(())
}
