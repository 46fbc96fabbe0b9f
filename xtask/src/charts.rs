//! Generated parts of the charts: Chart.yaml, values.schema.json, and the tables of values in READMEs (packaging §1, §3.3).

mod manifest;
mod schema;
mod values;

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::Generated;

/// What a chart is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Templates only.
    Library,
    /// Definitions of one group.
    Definitions,
    /// One process.
    Component,
    /// One process that reads the platform configuration.
    PlatformReader,
    /// All of them.
    Umbrella,
}

/// A chart of the repository.
struct Chart {
    /// Folder below `charts/`; also the key in the umbrella.
    folder: &'static str,
    kind: Kind,
    description: &'static str,
}

/// Every chart; the umbrella last.
const CHARTS: [Chart; 9] = [
    Chart { folder: "kagenti-lib", kind: Kind::Library, description: "What the charts of the suite share" },
    Chart {
        folder: "kagenti-crds-agent",
        kind: Kind::Definitions,
        description: "The CustomResourceDefinitions of group agent.kagenti.dev, and a Job that upgrades them",
    },
    Chart {
        folder: "runtime-ctl",
        kind: Kind::PlatformReader,
        description: "Enrols the workload named by an AgentRuntime",
    },
    Chart {
        folder: "card-ctl",
        kind: Kind::Component,
        description: "Fetches, verifies and binds the A2A cards of agents",
    },
    Chart {
        folder: "netpol-ctl",
        kind: Kind::Component,
        description: "Turns the verdict on an AgentCard into a NetworkPolicy",
    },
    Chart {
        folder: "mlflow-ctl",
        kind: Kind::Component,
        description: "Gives every agent an MLflow experiment",
    },
    Chart {
        folder: "authbridge-webhook",
        kind: Kind::PlatformReader,
        description: "Injects AuthBridge sidecars into agent Pods and validates the suite's objects",
    },
    Chart {
        folder: "client-registration-ctl",
        kind: Kind::PlatformReader,
        description: "Registers agents as OAuth clients in Keycloak and delivers their credentials",
    },
    Chart {
        folder: "kagenti-operator",
        kind: Kind::Umbrella,
        description: "Kubernetes controllers that give AI agents identity, authenticated traffic, discovery and isolation",
    },
];

/// Whole generated files: every Chart.yaml, every values.schema.json, and the defaults that templates can read.
pub(crate) fn files(root: &Path) -> Result<Vec<Generated>> {
    let mut files = Vec::new();
    for chart in &CHARTS {
        files.push(Generated {
            path: format!("charts/{}/Chart.yaml", chart.folder).into(),
            content: manifest::chart_yaml(chart),
        });
        if !matches!(chart.kind, Kind::Library | Kind::Umbrella) {
            let path = format!("charts/{}/files/defaults.json", chart.folder);
            files.push(Generated::json(path, &values::settings(root, chart.folder)?)?);
        }
        if chart.kind != Kind::Library {
            let path = format!("charts/{}/values.schema.json", chart.folder);
            files.push(Generated::json(path, &schema::of(root, chart)?)?);
        }
    }
    Ok(files)
}

/// A generated part of a README or of a values.yaml; `None` when the name is not ours.
pub(crate) fn section(root: &Path, name: &str) -> Result<Option<String>> {
    Ok(Some(match name.split_once(' ') {
        Some(("values", chart)) => values::table(root, chart)?,
        None if name == "global-table" => values::global_table(root)?,
        None if name == "global-keys" => values::commented(root, true)?,
        None if name == "shared-keys" => values::commented(root, false)?,
        _ => return Ok(None),
    }))
}

/// A file of schemas, `xtask/charts/<name>.yaml`.
fn fragments(root: &Path, name: &str) -> Result<Value> {
    let path = root.join(format!("xtask/charts/{name}.yaml"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("reading {}", path.display()))
}

/// The built-in defaults of the library, the only place for them.
fn built_in(root: &Path) -> Result<Value> {
    let path = root.join("charts/kagenti-lib/templates/_settings.tpl");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let body = text
        .split_once("{{- define \"kagenti.defaults\" -}}")
        .and_then(|(_, rest)| rest.split_once("{{- end -}}"));
    let Some((body, _)) = body else { bail!("{} does not define kagenti.defaults", path.display()) };
    serde_saphyr::from_str(body).with_context(|| format!("the defaults in {}", path.display()))
}
