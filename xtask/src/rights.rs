//! Tables of rights, from the rule files that charts, kustomize and tests read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize;

/// `charts/<component>/files/rbac.yaml` (packaging §6).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rights {
    scoped: Vec<PolicyRule>,
    release: Vec<PolicyRule>,
    cluster: Vec<PolicyRule>,
    named: BTreeMap<String, Vec<PolicyRule>>,
}

/// One row per rule.
pub(crate) fn table(root: &Path, component: &str) -> Result<String> {
    let path = root.join(format!("charts/{component}/files/rbac.yaml"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let rights: Rights =
        serde_saphyr::from_str(&text).with_context(|| format!("parsing {}", path.display()))?;
    let mut table = String::from("| where | resources | verbs |\n|---|---|---|\n");
    let mut rows = |place: &str, rules: &[PolicyRule]| {
        rules
            .iter()
            .try_for_each(|rule| writeln!(table, "| {place} | {} | {} |", what(rule), rule.verbs.join(", ")))
    };
    rows("cluster, or each watched namespace", &rights.scoped)?;
    rows("own namespace", &rights.release)?;
    rows("cluster only", &rights.cluster)?;
    for (namespace, rules) in &rights.named {
        rows(&format!("namespace `{namespace}`"), rules)?;
    }
    Ok(table)
}

fn what(rule: &PolicyRule) -> String {
    let group = rule.api_groups.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(", ");
    let list = |names: &Option<Vec<String>>| {
        names.iter().flatten().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
    };
    let mut text = list(&rule.resources);
    if rule.resources.is_none() {
        text = list(&rule.non_resource_urls);
    }
    if !group.is_empty() {
        text = format!("{text} ({group})");
    }
    if rule.resource_names.is_some() {
        text = format!("{text} named {}", list(&rule.resource_names));
    }
    text
}
