//! The charts as their users meet them. Scenarios are named by their number in the specification's chapter on packaging.

#![allow(clippy::indexing_slicing, reason = "a test says what it expects, and panics otherwise")]

mod admission;
mod convert;
mod dashboards;
mod defaults;
mod deploy;
mod golden;
mod install;
mod legacy;
mod modes;
mod programs;
mod refusals;
mod rights;
mod tests;
mod toggles;
mod uninstall;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use chart_tests::{Helm, Objects, UMBRELLA, value_sets};
use serde_json::Value;

/// Every chart that renders something.
fn rendered_charts() -> impl Iterator<Item = &'static str> {
    chart_tests::COMPONENTS.into_iter().chain(["kagenti-crds-agent", UMBRELLA])
}

/// Every chart with every of its value sets.
fn all_value_sets() -> Result<Vec<(&'static str, PathBuf)>> {
    let mut all = Vec::new();
    for chart in rendered_charts() {
        all.extend(value_sets(chart)?.into_iter().map(|file| (chart, file)));
    }
    Ok(all)
}

/// What a value set of a chart renders to, as release `kagenti-operator` in `kagenti-system`; rendered once.
fn rendered(chart: &str, file: &Path) -> Result<Objects> {
    static RENDERED: Mutex<BTreeMap<PathBuf, Objects>> = Mutex::new(BTreeMap::new());
    let mut known = RENDERED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(objects) = known.get(file) {
        return Ok(objects.clone());
    }
    let path = file.display().to_string();
    let objects = Helm::get()?.template(chart, "kagenti-operator", "kagenti-system", &["-f", &path])?;
    known.insert(file.to_owned(), objects.clone());
    Ok(objects)
}

/// What differs between two renderings, one line per object.
fn difference(one: &Objects, other: &Objects) -> Vec<String> {
    let (one, other) = (one.by_identity(), other.by_identity());
    let missing = |a: &BTreeMap<String, Value>, b: &BTreeMap<String, Value>, sign: &str| -> Vec<String> {
        a.keys().filter(|key| !b.contains_key(*key)).map(|key| format!("{sign} {key}")).collect()
    };
    let mut all = missing(&one, &other, "-");
    all.extend(missing(&other, &one, "+"));
    let changed = one.iter().filter(|(key, value)| other.get(*key).is_some_and(|theirs| theirs != *value));
    all.extend(changed.map(|(key, _)| format!("~ {key}")));
    all
}
