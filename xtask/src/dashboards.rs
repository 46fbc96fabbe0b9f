//! Grafana dashboards from the short descriptions in `xtask/dashboards`: for the umbrella, which renders them as
//! ConfigMaps, and in `deploy/dashboards` for everybody else (packaging §11).

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Generated;

/// Dashboards, by the name of their file.
const NAMES: [&str; 3] = ["suite", "admission", "agents"];
/// Columns of a dashboard.
const COLUMNS: u32 = 24;
/// Height of a graph and of a row of figures.
const HEIGHTS: (u32, u32) = (8, 5);
/// What stands for the choice of namespaces in an expression.
const HERE: (&str, &str) = ("{$here", "{namespace=~\"$namespace\"");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dashboard {
    title: String,
    description: String,
    panels: Vec<Panel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Panel {
    title: String,
    #[serde(default)]
    about: String,
    #[serde(default, rename = "type")]
    kind: Kind,
    #[serde(default)]
    width: Option<u32>,
    #[serde(default)]
    unit: Option<String>,
    queries: Vec<Query>,
}

/// How figures are shown.
#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// Over time.
    #[default]
    TimeSeries,
    /// The last one, large.
    Stat,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    legend: String,
    expr: String,
}

/// Every dashboard in both places.
pub(crate) fn files(root: &Path) -> Result<Vec<Generated>> {
    let mut files = Vec::new();
    for name in NAMES {
        let path = root.join(format!("xtask/dashboards/{name}.yaml"));
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let board: Dashboard =
            serde_saphyr::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        let board = rendered(name, &board);
        for folder in ["charts/kagenti-operator/files/dashboards", "deploy/dashboards"] {
            files.push(Generated::json(format!("{folder}/{name}.json"), &board)?);
        }
    }
    Ok(files)
}

fn rendered(name: &str, board: &Dashboard) -> Value {
    let (mut x, mut y, mut row) = (0, 0, 0);
    let panels: Vec<Value> = board
        .panels
        .iter()
        .zip(1..)
        .map(|(panel, id)| {
            let width = panel.width.unwrap_or(COLUMNS / 2);
            let height = if panel.kind == Kind::Stat { HEIGHTS.1 } else { HEIGHTS.0 };
            if x + width > COLUMNS {
                (x, y, row) = (0, y + row, 0);
            }
            let place = json!({"x": x, "y": y, "w": width, "h": height});
            x += width;
            row = row.max(height);
            self::panel(panel, id, &place)
        })
        .collect();
    json!({
        "uid": format!("kagenti-{name}"),
        "title": board.title,
        "description": board.description,
        "tags": ["kagenti"],
        "schemaVersion": 39,
        "version": 1,
        "editable": true,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
            variable("namespace", "Namespace of the suite", "kagenti_build_info, namespace"),
            variable("component", "Component", "kagenti_build_info{namespace=~\"$namespace\"}, component"),
        ]},
        "panels": panels,
    })
}

/// A choice of label values; all of them at first.
fn variable(name: &str, label: &str, values: &str) -> Value {
    json!({
        "name": name,
        "label": label,
        "type": "query",
        "datasource": datasource(),
        "query": {"query": format!("label_values({values})"), "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": true,
        "includeAll": true,
        "current": {"selected": true, "text": ["All"], "value": ["$__all"]},
    })
}

fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

fn panel(panel: &Panel, id: u32, place: &Value) -> Value {
    let targets: Vec<Value> = panel
        .queries
        .iter()
        .zip('A'..)
        .map(|(query, reference)| {
            let expr = query.expr.replace(HERE.0, HERE.1);
            json!({
                "refId": reference.to_string(),
                "datasource": datasource(),
                "expr": expr,
                "legendFormat": query.legend,
                "instant": panel.kind == Kind::Stat,
            })
        })
        .collect();
    let (kind, options) = match panel.kind {
        Kind::TimeSeries => (
            "timeseries",
            json!({
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
        ),
        Kind::Stat => (
            "stat",
            json!({
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
                "colorMode": "none",
                "graphMode": "none",
                "textMode": "auto",
            }),
        ),
    };
    let mut defaults = json!({"unit": panel.unit.as_deref().unwrap_or("short"), "min": 0});
    if panel.kind == Kind::Stat {
        defaults = json!({"unit": panel.unit.as_deref().unwrap_or("short"), "decimals": 0});
    }
    json!({
        "id": id,
        "title": panel.title,
        "description": panel.about,
        "type": kind,
        "datasource": datasource(),
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": targets,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_fill_rows_from_left_to_right() {
        let text = "title: t\ndescription: d\npanels:\n\
                    - {title: a, type: stat, width: 16, queries: []}\n\
                    - {title: b, type: stat, width: 8, queries: []}\n\
                    - {title: c, unit: s, queries: [{legend: l, expr: 'up{$here, a=\"b\"}'}]}\n";
        let board = rendered("x", &serde_saphyr::from_str(text).unwrap());
        let places: Vec<(u64, u64)> = board["panels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|panel| {
                let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
                (at("x"), at("y"))
            })
            .collect();
        assert_eq!(places, [(0, 0), (16, 0), (0, 5)]);
        assert_eq!(board["panels"][2]["targets"][0]["expr"], "up{namespace=~\"$namespace\", a=\"b\"}");
    }
}
