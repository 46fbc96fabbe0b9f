//! What each value of the previous chart became, and what this chart has: read from the chart's own files.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::document::{self, Yaml};

const LEGACY: &str = include_str!("../../../charts/kagenti-operator/files/legacy-values.yaml");
const CHART: &str = include_str!("../../../charts/kagenti-operator/Chart.yaml");
const VALUES: &str = include_str!("../../../charts/kagenti-operator/values.yaml");
const SCHEMA: &str = include_str!("../../../charts/kagenti-operator/values.schema.json");

/// A file of the chart that was built in does not have its shape; a test keeps this from being released.
#[derive(Debug, thiserror::Error)]
#[error("{file}, which is built into this program, cannot be used: {reason}; please report this")]
pub struct Broken {
    file: &'static str,
    reason: String,
}

impl Broken {
    fn new(file: &'static str, reason: &impl ToString) -> Self {
        Self { file, reason: reason.to_string() }
    }
}

/// The table, and the chart whose values it leads to.
#[derive(Clone, Debug)]
pub struct Table {
    /// One per value of the previous chart, children before parents.
    pub rows: Vec<Row>,
    /// Flags of the previous operator.
    pub flags: Flags,
    /// Components in the order of the chart; whether each is on unless values say otherwise.
    pub components: Vec<(String, bool)>,
    /// Top-level keys of this chart.
    pub keys: BTreeSet<String>,
}

/// A row of `legacy-values.yaml`; its head explains the fields.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Dotted path in the previous values.
    pub old: String,
    /// Its value there; none = every value is meant.
    pub default: Option<Value>,
    /// Where the value goes.
    #[serde(default)]
    pub new: Vec<String>,
    /// `path=value` settings by the text of the old value.
    pub values: Option<BTreeMap<String, Vec<String>>>,
    /// Why any value is dropped.
    pub any: Option<String>,
    /// Why another value than the default has no place.
    pub refuse: Option<String>,
    /// A transformation of its own.
    #[serde(rename = "as")]
    pub transform: Option<Transform>,
}

/// What happens to a value that is not simply copied.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Transform {
    /// `<registry>/<prefix>/kagenti-operator` becomes registry and prefix.
    Image,
    /// Flag by flag.
    Args,
    /// A map of names becomes a list of variables.
    Env,
}

/// What each flag of the previous operator became.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flags {
    /// Set by the chart itself; a star at the end stands for anything.
    pub dropped: Vec<String>,
    /// Flag -> key.
    pub keys: BTreeMap<String, String>,
    /// Flag -> component that still has it.
    pub owners: BTreeMap<String, String>,
    /// Not built; only `false` is accepted.
    pub refused: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Legacy {
    rows: Vec<Row>,
    flags: Flags,
}

#[derive(Deserialize)]
struct Chart {
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
}

impl Table {
    /// The table of the chart this program was built with. An error when one of the chart's files does not have its shape.
    pub fn built_in() -> Result<Self, Broken> {
        let Legacy { rows, flags } =
            serde_saphyr::from_str(LEGACY).map_err(|error| Broken::new("legacy-values.yaml", &error))?;
        let chart: Chart =
            serde_saphyr::from_str(CHART).map_err(|error| Broken::new("Chart.yaml", &error))?;
        let values = document::read(VALUES).map_err(|error| Broken::new("values.yaml", &error))?;
        let schema: Value =
            serde_json::from_str(SCHEMA).map_err(|error| Broken::new("values.schema.json", &error))?;
        let components = chart.dependencies.into_iter().map(|dependency| dependency.name);
        let components = components
            .filter(|name| name != "kagenti-lib" && !name.starts_with("kagenti-crds-"))
            .map(|name| {
                let on = is_on(&values, &name).unwrap_or(false);
                (name, on)
            });
        let old: BTreeSet<&str> = rows.iter().filter_map(|row| row.old.split('.').next()).collect();
        let properties = schema.get("properties").and_then(Value::as_object);
        let properties = properties.ok_or_else(|| Broken::new("values.schema.json", &"no properties"))?;
        let keys = properties.keys().filter(|key| !old.contains(key.as_str())).cloned().collect();
        Ok(Self { components: components.collect(), keys, rows, flags })
    }

    /// Whether a component is on with these values.
    pub fn is_on(&self, component: &str, values: &Yaml) -> bool {
        is_on(values, component)
            .unwrap_or_else(|| self.components.iter().any(|(name, on)| name == component && *on))
    }
}

/// The toggle of a component, where it is said.
fn is_on(values: &Yaml, component: &str) -> Option<bool> {
    values.get(component)?.get("enabled")?.as_bool()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::built_in().expect("built in")
    }

    #[test]
    fn every_row_leads_somewhere_in_one_way() {
        for row in table().rows {
            let ways = [
                !row.new.is_empty(),
                row.values.is_some(),
                row.any.is_some(),
                row.refuse.is_some(),
                row.transform.is_some(),
            ];
            assert_eq!(ways.into_iter().filter(|way| *way).count(), 1, "{row:?}");
        }
    }

    /// A parent before its child would swallow it.
    #[test]
    fn children_stand_before_parents() {
        let rows = table().rows;
        for (n, row) in rows.iter().enumerate() {
            let below = format!("{}.", row.old);
            assert!(rows.iter().skip(n).all(|later| !later.old.starts_with(&below)), "{}", row.old);
            assert_eq!(rows.iter().filter(|other| other.old == row.old).count(), 1, "{}", row.old);
        }
    }

    /// Each new path begins with a key of the chart, or with all components.
    #[test]
    fn every_row_leads_to_a_key_of_the_chart() {
        let table = table();
        let mut paths: Vec<&str> = table.rows.iter().flat_map(|row| &row.new).map(String::as_str).collect();
        let values = table.rows.iter().filter_map(|row| row.values.as_ref()).flat_map(BTreeMap::values);
        paths.extend(values.flatten().filter_map(|setting| setting.split('=').next()));
        paths.extend(table.flags.keys.values().map(String::as_str));
        paths.extend(table.flags.owners.values().map(String::as_str));
        assert!(paths.len() > 60, "{paths:?}");
        for path in paths {
            let first = path.split('.').next().unwrap_or_default();
            assert!(["<controller>", "<component>"].contains(&first) || table.keys.contains(first), "{path}");
        }
    }

    #[test]
    fn components_are_those_of_the_chart() {
        let table = table();
        let on: Vec<_> =
            table.components.iter().filter(|(_, on)| *on).map(|(name, _)| name.as_str()).collect();
        assert_eq!(on, ["runtime-ctl", "card-ctl", "authbridge-webhook", "client-registration-ctl"]);
        assert!(table.components.iter().any(|(name, on)| name == "mlflow-ctl" && !on));
        for key in ["global", "defaults", "featureGates", "card-ctl", "kagenti-crds-agent", "extraObjects"] {
            assert!(table.keys.contains(key), "{key}");
        }
        assert!(!table.keys.contains("controllerManager"));
    }
}
