//! Names of experiments, Roles and RoleBindings (MLflow §6.2). Pure.

use std::str::FromStr;

use crate::{
    kinds::WorkloadKind,
    workload::{Workload, WorkloadKey},
};

/// First part of the name of every Role and RoleBinding of ours.
pub const PREFIX: &str = "kagenti-mlflow-";
/// Longest name of an experiment, in characters.
const LONGEST: usize = 500;

/// `--mlflow-experiment-name-template`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NameTemplate {
    /// `{name}` with workspaces, `{namespace}/{name}` without.
    #[default]
    Auto,
    /// A text with placeholders `{namespace}`, `{name}` and `{kind}`.
    Text(String),
}

impl FromStr for NameTemplate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        if text.trim().is_empty() {
            return Err(
                "the template is empty: write auto, or a text with {namespace}, {name}, {kind}".into()
            );
        }
        let mut rest = text;
        let mut placeholders = 0;
        while let Some((_, tail)) = rest.split_once('{') {
            let Some((word, tail)) = tail.split_once('}') else {
                return Err("a `{` without `}`".into());
            };
            if !["namespace", "name", "kind"].contains(&word) {
                return Err(format!("{{{word}}} is no placeholder: use {{namespace}}, {{name}} or {{kind}}"));
            }
            placeholders += usize::from(word == "name");
            rest = tail;
        }
        if placeholders == 0 {
            return Err("without {name} all agents would share one experiment".into());
        }
        Ok(Self::Text(text.to_owned()))
    }
}

impl std::fmt::Display for NameTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Text(text) => text,
        })
    }
}

/// A name that MLflow would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of the experiment has {characters} characters, 1 to {LONGEST} are allowed: change annotation \
     mlflow.kagenti.io/experiment, or --mlflow-experiment-name-template"
)]
pub struct BadName {
    characters: usize,
}

/// Name of the experiment of a workload.
///
/// # Errors
/// [`BadName`].
pub fn experiment(workload: &Workload, template: &NameTemplate, workspaces: bool) -> Result<String, BadName> {
    let name = match &workload.experiment {
        Some(name) => name.to_string(),
        None => from_template(&workload.key, template, workspaces),
    };
    let characters = name.chars().count();
    if name.trim().is_empty() || characters > LONGEST { Err(BadName { characters }) } else { Ok(name) }
}

fn from_template(key: &WorkloadKey, template: &NameTemplate, workspaces: bool) -> String {
    let text = match template {
        NameTemplate::Text(text) => text.as_str(),
        NameTemplate::Auto if workspaces => "{name}",
        NameTemplate::Auto => "{namespace}/{name}",
    };
    // Names of Kubernetes objects hold no braces, so one replacement cannot make a placeholder for the next.
    text.replace("{namespace}", &key.namespace)
        .replace("{name}", &key.name)
        .replace("{kind}", key.kind.as_str())
}

/// Name of the Role and the RoleBinding of a workload. `:` is allowed in names of RBAC objects and not in those of
/// workloads, so no two workloads share one.
pub fn grant(key: &WorkloadKey) -> String {
    let suffix = match key.kind {
        WorkloadKind::Deployment => "",
        WorkloadKind::StatefulSet => ":statefulset",
        WorkloadKind::Sandbox => ":sandbox",
    };
    format!("{PREFIX}{}{suffix}", key.name)
}

/// The workload that a Role or RoleBinding of this name belongs to; `None` = it is none of ours.
pub fn workload_of_grant(namespace: &str, name: &str) -> Option<WorkloadKey> {
    let rest = name.strip_prefix(PREFIX)?;
    let (name, kind) = match rest.split_once(':') {
        None => (rest, WorkloadKind::Deployment),
        Some((name, "statefulset")) => (name, WorkloadKind::StatefulSet),
        Some((name, "sandbox")) => (name, WorkloadKind::Sandbox),
        Some(_) => return None,
    };
    (!name.is_empty()).then(|| WorkloadKey { namespace: namespace.to_owned(), kind, name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::tests::workload;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("auto", true, "weather")]
    #[case("auto", false, "team1/weather")]
    #[case("{kind}-{namespace}-{name}", true, "Deployment-team1-weather")]
    #[case("x {name}", false, "x weather")]
    fn templates(#[case] template: &str, #[case] workspaces: bool, #[case] want: &str) {
        let workload = workload(WorkloadKind::Deployment, json!({}));
        assert_eq!(experiment(&workload, &template.parse().unwrap(), workspaces).unwrap(), want);
    }

    /// Without a workload's name in it, a template would put all tenants into one experiment.
    #[rstest]
    #[case("")]
    #[case("all")]
    #[case("{namespace}")]
    #[case("{name")]
    #[case("{Name}")]
    #[case("{name}{}")]
    fn bad_templates(#[case] template: &str) {
        template.parse::<NameTemplate>().unwrap_err();
    }

    #[rstest]
    #[case("mine", Some("mine"))]
    #[case("", None)]
    #[case("  ", None)]
    fn the_annotation_wins(#[case] annotation: &str, #[case] want: Option<&str>) {
        let document = json!({"metadata": {"annotations": {"mlflow.kagenti.io/experiment": annotation}}});
        let workload = workload(WorkloadKind::Deployment, document);
        assert_eq!(experiment(&workload, &NameTemplate::Auto, true).ok().as_deref(), want);
    }

    #[test]
    fn the_longest_name_counts_characters() {
        let named = |length: usize| {
            let document =
                json!({"metadata": {"annotations": {"mlflow.kagenti.io/experiment": "é".repeat(length)}}});
            experiment(&workload(WorkloadKind::Deployment, document), &NameTemplate::Auto, true)
        };
        named(500).unwrap();
        assert_eq!(named(501).unwrap_err(), BadName { characters: 501 });
    }

    /// Scenario 13: two workloads of one name have two Roles, and a Role's name leads back to its workload.
    #[rstest]
    #[case(WorkloadKind::Deployment, "kagenti-mlflow-weather")]
    #[case(WorkloadKind::StatefulSet, "kagenti-mlflow-weather:statefulset")]
    #[case(WorkloadKind::Sandbox, "kagenti-mlflow-weather:sandbox")]
    fn grants(#[case] kind: WorkloadKind, #[case] want: &str) {
        let key = WorkloadKey { namespace: "team1".into(), kind, name: "weather".into() };
        assert_eq!(grant(&key), want);
        assert_eq!(workload_of_grant("team1", want), Some(key));
    }

    #[rstest]
    #[case("other")]
    #[case("kagenti-mlflow-")]
    #[case("kagenti-mlflow-x:job")]
    fn names_that_are_not_ours(#[case] name: &str) {
        assert_eq!(workload_of_grant("team1", name), None);
    }
}
