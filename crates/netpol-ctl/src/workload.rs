//! What netpol-ctl knows of a workload: which Pods are its own.

use std::{borrow::Cow, collections::BTreeMap};

use api_types::enrolment::TargetKind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::{Resource, core::DynamicResourceScope, discovery::ApiResource};
use serde::{Deserialize, Serialize};

/// Served versions of the Sandbox kind, newest first.
pub const SANDBOX_VERSIONS: [&str; 2] = ["v1beta1", "v1alpha1"];
/// Labels of the suite on a pod template come and go; a selector must not.
const OWN_LABELS: &str = "agent.kagenti.dev/";

/// A Deployment, StatefulSet or Sandbox as read from the API: only what the policy depends on.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct WorkloadView {
    /// Object metadata.
    #[serde(default, deserialize_with = "controller_kit::lean::metadata")]
    pub metadata: ObjectMeta,
    /// The part of the spec that matters.
    #[serde(default)]
    pub spec: SpecView,
}

/// The part of a workload's spec that matters.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpecView {
    /// Deployment and StatefulSet.
    pub selector: Option<LabelSelector>,
    /// Sandbox.
    pub pod_template: Option<TemplateView>,
}

/// The part of a pod template that matters.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct TemplateView {
    /// Its metadata.
    pub metadata: TemplateMeta,
}

/// Labels of a pod template.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct TemplateMeta {
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
}

impl Resource for WorkloadView {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(dt: &ApiResource) -> Cow<'_, str> {
        dt.kind.as_str().into()
    }
    fn group(dt: &ApiResource) -> Cow<'_, str> {
        dt.group.as_str().into()
    }
    fn version(dt: &ApiResource) -> Cow<'_, str> {
        dt.version.as_str().into()
    }
    fn plural(dt: &ApiResource) -> Cow<'_, str> {
        dt.plural.as_str().into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The resource to watch; `sandbox` is the version of the Sandbox kind and ignored for the others.
pub fn resource(kind: TargetKind, sandbox: &str) -> ApiResource {
    let (version, plural) = match kind {
        TargetKind::Deployment => ("v1", "deployments"),
        TargetKind::StatefulSet => ("v1", "statefulsets"),
        TargetKind::Sandbox => (sandbox, "sandboxes"),
    };
    ApiResource {
        group: kind.group().into(),
        version: version.into(),
        api_version: format!("{}/{version}", kind.group()),
        kind: kind.as_str().into(),
        plural: plural.into(),
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
