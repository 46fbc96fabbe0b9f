//! What netpol-ctl knows of a workload: which Pods are its own.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use api_types::enrolment::TargetKind;
use controller_kit::{index::Entry, lean::LeanObject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;

use crate::index::Slot;

/// Labels of the suite on a pod template come and go; a selector must not.
const OWN_LABELS: &str = "agent.kagenti.dev/";

/// A Deployment, StatefulSet or Sandbox as read from the API: only what the policy depends on.
pub type WorkloadView = LeanObject<SpecView>;

/// The part of a workload's spec that matters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpecView {
    /// Deployment and StatefulSet.
    pub selector: Option<LabelSelector>,
    /// Sandbox.
    pub pod_template: Option<TemplateView>,
}

/// The part of a pod template that matters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TemplateView {
    /// Its metadata.
    pub metadata: TemplateMeta,
}

/// Labels of a pod template.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TemplateMeta {
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
}

/// Names one workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadKey {
    /// Namespace and name.
    pub slot: Slot,
    /// Kind.
    pub kind: TargetKind,
}

/// A workload with label `kagenti.io/type=agent`, as kept in the index.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// Namespace, name and kind.
    pub key: WorkloadKey,
    /// Selects its Pods; `None` = nothing would tell them from others.
    pub selector: Option<Arc<LabelSelector>>,
}

impl Entry for Agent {
    type Key = WorkloadKey;
    type Link = Infallible;

    fn key(&self) -> &WorkloadKey {
        &self.key
    }

    /// Only the watch writes it, so its events come in order.
    fn version(&self) -> &'static str {
        ""
    }

    fn links(&self) -> impl Iterator<Item = Infallible> {
        std::iter::empty()
    }
}

/// Selects the Pods of a workload (card §15.2); `None` = nothing would tell them from others.
pub fn pod_selector(kind: TargetKind, name: &str, spec: SpecView) -> Option<LabelSelector> {
    match kind {
        TargetKind::Deployment | TargetKind::StatefulSet => {
            let selector = spec.selector?;
            let labels = selector.match_labels.filter(|labels| !labels.is_empty());
            let expressions = selector.match_expressions.filter(|list| !list.is_empty());
            (labels.is_some() || expressions.is_some())
                .then_some(LabelSelector { match_labels: labels, match_expressions: expressions })
        }
        TargetKind::Sandbox => {
            let labels = spec.pod_template.and_then(|template| template.metadata.labels).unwrap_or_default();
            let labels: BTreeMap<_, _> =
                labels.into_iter().filter(|(key, _)| !key.starts_with(OWN_LABELS)).collect();
            Some(if labels.is_empty() {
                by_convention(name)
            } else {
                LabelSelector { match_labels: Some(labels), match_expressions: None }
            })
        }
    }
}

/// Selects by the labels that agents carry by convention: `kagenti.io/type=agent`, `app=<name>`.
pub fn by_convention(name: &str) -> LabelSelector {
    let labels = [(api_types::names::label::TYPE, "agent"), ("app", name)];
    let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    LabelSelector { match_labels: Some(labels), match_expressions: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    use TargetKind::{Deployment, Sandbox, StatefulSet};

    #[rstest]
    #[case(Deployment, json!({"selector": {"matchLabels": {"app": "x"}}}), json!({"matchLabels": {"app": "x"}}))]
    #[case(
        StatefulSet,
        json!({"selector": {"matchLabels": {}, "matchExpressions": [{"key": "a", "operator": "Exists"}]}}),
        json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]})
    )]
    #[case(Deployment, json!({"selector": {}}), json!(null))]
    #[case(Deployment, json!({"selector": {"matchLabels": {}, "matchExpressions": []}}), json!(null))]
    #[case(Deployment, json!({}), json!(null))]
    #[case(
        Sandbox,
        json!({"podTemplate": {"metadata": {"labels": {"x": "y", "agent.kagenti.dev/signature-verified": "true"}}}}),
        json!({"matchLabels": {"x": "y"}})
    )]
    #[case(
        Sandbox,
        json!({"podTemplate": {"metadata": {"labels": {"agent.kagenti.dev/enrolled": "true"}}}}),
        json!({"matchLabels": {"app": "w", "kagenti.io/type": "agent"}})
    )]
    #[case(Sandbox, json!({}), json!({"matchLabels": {"app": "w", "kagenti.io/type": "agent"}}))]
    fn selectors(#[case] kind: TargetKind, #[case] spec: Value, #[case] want: Value) {
        let selector = pod_selector(kind, "w", serde_json::from_value(spec).unwrap());
        assert_eq!(serde_json::to_value(selector).unwrap(), want);
    }
}
