//! Tables of rights, from the rule files that charts, kustomize and tests read. Why a right is needed is the comment above
//! its rule; a rule without one is an error.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
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
    let why = reasons(&text).with_context(|| path.display().to_string())?;
    let mut table = String::from("| where | resources | verbs | why |\n|---|---|---|---|\n");
    let mut rows = |place: &str, list: &str, rules: &[PolicyRule]| -> Result<()> {
        let why = why.get(list).map(Vec::as_slice).unwrap_or_default();
        ensure!(why.len() == rules.len(), "{list}: {} reasons for {} rules", why.len(), rules.len());
        for (rule, why) in rules.iter().zip(why) {
            writeln!(table, "| {place} | {} | {} | {why} |", what(rule), rule.verbs.join(", "))?;
        }
        Ok(())
    };
    rows("cluster, or each watched namespace", "scoped", &rights.scoped)?;
    rows("own namespace", "release", &rights.release)?;
    rows("cluster only", "cluster", &rights.cluster)?;
    for (namespace, rules) in &rights.named {
        rows(&format!("namespace `{namespace}`"), namespace, rules)?;
    }
    Ok(table)
}

/// The comments right above the rules of each list, in their order; a list of `named` goes by its namespace.
fn reasons(text: &str) -> Result<BTreeMap<&str, Vec<String>>> {
    let mut all: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let (mut list, mut within_named, mut comment) = ("", false, Vec::new());
    for line in text.lines() {
        let bare = line.trim_start();
        let indent = line.len() - bare.len();
        if let Some(words) = bare.strip_prefix("# ") {
            comment.push(words);
            continue;
        }
        if bare.starts_with("- apiGroups") || bare.starts_with("- nonResourceURLs") {
            ensure!(!comment.is_empty(), "{list}: a rule has no comment that says why: {bare}");
            all.entry(list).or_default().push(comment.join(" "));
        } else if let Some((key, _)) = bare.split_once(':').filter(|_| !bare.starts_with('-')) {
            if indent == 0 {
                (list, within_named) = (key, key == "named");
            } else if indent == 2 && within_named {
                list = key;
            }
        }
        comment.clear();
    }
    Ok(all)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_the_comment_above_its_rule() {
        let text = "# The file.\n\n# Everywhere.\nscoped:\n# Two\n# lines.\n- apiGroups: [a]\n  resources: [x]\n\
                    # Another.\n- apiGroups: [b]\n  verbs:\n  - get\nnamed:\n  keycloak:\n  # Its Secret.\n  - apiGroups: [\"\"]\n    \
                    resources: [secrets]\n";
        let found = reasons(text).unwrap();
        assert_eq!(found["scoped"], ["Two lines.", "Another."]);
        assert_eq!(found["keycloak"], ["Its Secret."]);
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_rule_without_reason_is_an_error() {
        let text = "# Everywhere.\nscoped:\n- apiGroups: [a]\n";
        assert!(reasons(text).unwrap_err().to_string().contains("no comment"));
        assert!(reasons("# Far away.\n\n- apiGroups: [a]\n").is_err());
    }
}
