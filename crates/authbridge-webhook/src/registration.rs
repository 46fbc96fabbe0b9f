//! The two webhook configurations (webhook §3, packaging §9): what the API server sends us.
//!
//! The chart renders the same objects; this module is their one source in code, printed by
//! `registration print` for local clusters, kustomize and administrators of namespaced installs.

use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{
        MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference,
        ValidatingWebhook, ValidatingWebhookConfiguration, WebhookClientConfig,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta},
};

use api_types::names::{GROUP, VERSION, label};

/// Path of the Pod endpoint, of both mutating entries.
pub const PODS_PATH: &str = "/mutate-workloads-authbridge";
/// Path of the AgentRuntime validator.
pub const RUNTIMES_PATH: &str = "/validate-agent-kagenti-dev-v1alpha1-agentruntime";
/// Path of the AgentCard validator.
pub const CARDS_PATH: &str = "/validate-agent-kagenti-dev-v1alpha1-agentcard";
/// Entry for labelled Pods in enabled namespaces.
pub const INJECT: &str = "inject.kagenti.io";
/// Entry for enrolled Pods in every other namespace.
pub const ENROLLED_INJECT: &str = "enrolled.inject.kagenti.io";
/// Entry of the AgentRuntime validator.
pub const RUNTIMES: &str = "vagentruntime.kb.io";
/// Entry of the AgentCard validator.
pub const CARDS: &str = "vagentcard.kb.io";

/// Namespaces that no entry covers, beside the operator's own.
pub const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// How the API server reaches the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Through the Service `<fullname>-webhook-service` in the operator namespace, port 443.
    Service,
    /// Directly; `https://host:port` without path.
    Url(String),
}

/// What the two objects depend on.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Prefix of the object names and of the Service.
    pub fullname: String,
    /// Namespace of the webhook itself.
    pub namespace: String,
    /// How the API server reaches the webhook.
    pub address: Address,
    /// PEM of the authority; `None` leaves `caBundle` to the certificate writer.
    pub ca_bundle: Option<Vec<u8>>,
    /// Only these namespaces; empty = all but the excluded ones.
    pub namespaces: Vec<String>,
}

/// Name of the mutating configuration.
pub fn mutating_name(fullname: &str) -> String {
    format!("{fullname}-mutating-webhook-configuration")
}

/// Name of the validating configuration.
pub fn validating_name(fullname: &str) -> String {
    format!("{fullname}-validating-webhook-configuration")
}

/// Name of the Service in front of the webhook.
pub fn service_name(fullname: &str) -> String {
    format!("{fullname}-webhook-service")
}

impl Registration {
    /// The configuration of the Pod endpoint.
    pub fn mutating(&self) -> MutatingWebhookConfiguration {
        let typed = requirement(label::TYPE, "In", &["agent", "tool"]);
        let enrolled = requirement(label::ENROLLED, "In", &["true"]);
        let entry = |name: &str, enabled: LabelSelectorRequirement, object: LabelSelectorRequirement| {
            let mut namespaces = self.namespace_requirements();
            namespaces.push(enabled);
            MutatingWebhook {
                name: name.to_owned(),
                client_config: self.client_config(PODS_PATH),
                rules: Some(vec![rule("", "v1", "pods", &["CREATE"])]),
                namespace_selector: Some(selector(namespaces)),
                object_selector: Some(selector(vec![
                    object,
                    requirement(label::INJECT, "NotIn", &["disabled"]),
                ])),
                failure_policy: Some("Fail".to_owned()),
                match_policy: Some("Equivalent".to_owned()),
                timeout_seconds: Some(10),
                reinvocation_policy: Some("IfNeeded".to_owned()),
                side_effects: "NoneOnDryRun".to_owned(),
                admission_review_versions: vec!["v1".to_owned()],
                ..MutatingWebhook::default()
            }
        };
        MutatingWebhookConfiguration {
            metadata: metadata(mutating_name(&self.fullname)),
            webhooks: Some(vec![
                entry(INJECT, requirement(label::NAMESPACE_ENABLED, "In", &["true"]), typed),
                entry(ENROLLED_INJECT, requirement(label::NAMESPACE_ENABLED, "NotIn", &["true"]), enrolled),
            ]),
        }
    }

    /// The configuration of the validators.
    pub fn validating(&self) -> ValidatingWebhookConfiguration {
        let entry = |name: &str, path: &str, resource: &str| ValidatingWebhook {
            name: name.to_owned(),
            client_config: self.client_config(path),
            rules: Some(vec![rule(GROUP, VERSION, resource, &["CREATE", "UPDATE"])]),
            namespace_selector: (!self.namespaces.is_empty())
                .then(|| selector(vec![requirement(label::NAMESPACE_NAME, "In", &self.namespaces)])),
            match_conditions: Some(spec_changes()),
            failure_policy: Some("Fail".to_owned()),
            match_policy: Some("Equivalent".to_owned()),
            timeout_seconds: Some(5),
            side_effects: "None".to_owned(),
            admission_review_versions: vec!["v1".to_owned()],
            ..ValidatingWebhook::default()
        };
        ValidatingWebhookConfiguration {
            metadata: metadata(validating_name(&self.fullname)),
            webhooks: Some(vec![
                entry(CARDS, CARDS_PATH, "agentcards"),
                entry(RUNTIMES, RUNTIMES_PATH, "agentruntimes"),
            ]),
        }
    }

    /// Both objects as one YAML stream, keys sorted.
    pub fn to_yaml(&self) -> Result<String, serde_json::Error> {
        let mut text = String::new();
        for object in [serde_json::to_value(self.mutating())?, serde_json::to_value(self.validating())?] {
            text.push_str("---\n");
            let yaml = api_types::yaml::to_yaml(&object);
            text.push_str(yaml.trim_end());
            text.push('\n');
        }
        Ok(text)
    }

    fn namespace_requirements(&self) -> Vec<LabelSelectorRequirement> {
        let mut excluded: Vec<&str> = SYSTEM_NAMESPACES.to_vec();
        excluded.push(&self.namespace);
        let mut all = vec![requirement(label::NAMESPACE_NAME, "NotIn", &excluded)];
        if !self.namespaces.is_empty() {
            all.push(requirement(label::NAMESPACE_NAME, "In", &self.namespaces));
        }
        all
    }

    fn client_config(&self, path: &str) -> WebhookClientConfig {
        let ca_bundle = self.ca_bundle.clone().map(ByteString);
        match &self.address {
            Address::Service => WebhookClientConfig {
                ca_bundle,
                service: Some(ServiceReference {
                    name: service_name(&self.fullname),
                    namespace: self.namespace.clone(),
                    path: Some(path.to_owned()),
                    port: Some(443),
                }),
                url: None,
            },
            Address::Url(base) => WebhookClientConfig {
                ca_bundle,
                service: None,
                url: Some(format!("{}{path}", base.trim_end_matches('/'))),
            },
        }
    }
}

/// Updates that leave `spec` alone and objects being deleted are not sent (runtime §9.1): with the
/// webhook away, removing a finalizer must still work.
fn spec_changes() -> Vec<MatchCondition> {
    let condition = |name: &str, expression: &str| MatchCondition {
        name: name.to_owned(),
        expression: expression.to_owned(),
    };
    vec![
        condition("not-being-deleted", "!has(object.metadata.deletionTimestamp)"),
        condition(
            "spec-changes",
            "request.operation != 'UPDATE' || has(object.spec) != has(oldObject.spec) || (has(object.spec) && object.spec != oldObject.spec)",
        ),
    ]
}

fn metadata(name: String) -> ObjectMeta {
    ObjectMeta { name: Some(name), ..ObjectMeta::default() }
}

fn rule(group: &str, version: &str, resource: &str, operations: &[&str]) -> RuleWithOperations {
    RuleWithOperations {
        api_groups: Some(vec![group.to_owned()]),
        api_versions: Some(vec![version.to_owned()]),
        operations: Some(operations.iter().map(|&o| o.to_owned()).collect()),
        resources: Some(vec![resource.to_owned()]),
        scope: Some("Namespaced".to_owned()),
    }
}

fn selector(requirements: Vec<LabelSelectorRequirement>) -> LabelSelector {
    LabelSelector { match_expressions: Some(requirements), match_labels: None }
}

fn requirement<S: AsRef<str>>(key: &str, operator: &str, values: &[S]) -> LabelSelectorRequirement {
    LabelSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: Some(values.iter().map(|v| v.as_ref().to_owned()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration() -> Registration {
        Registration {
            fullname: "kagenti-operator".into(),
            namespace: "kagenti-system".into(),
            address: Address::Service,
            ca_bundle: None,
            namespaces: Vec::new(),
        }
    }

    fn requirement_of<'a>(selector: &'a LabelSelector, key: &str, operator: &str) -> &'a [String] {
        selector
            .match_expressions
            .as_deref()
            .unwrap()
            .iter()
            .find(|r| r.key == key && r.operator == operator)
            .and_then(|r| r.values.as_deref())
            .unwrap()
    }

    /// Webhook §3: two entries, disjoint by the namespace label, everything else equal.
    #[test]
    fn the_two_pod_entries_are_disjoint_and_otherwise_equal() {
        let both = registration().mutating().webhooks.unwrap();
        let [a, b] = &both[..] else { panic!("two entries") };
        assert_eq!((a.name.as_str(), b.name.as_str()), (INJECT, ENROLLED_INJECT));
        let namespaces = |w: &MutatingWebhook| w.namespace_selector.clone().unwrap();
        assert_eq!(requirement_of(&namespaces(a), "kagenti-enabled", "In"), ["true"]);
        assert_eq!(requirement_of(&namespaces(b), "kagenti-enabled", "NotIn"), ["true"]);
        for w in [a, b] {
            let excluded = namespaces(w);
            let excluded = requirement_of(&excluded, "kubernetes.io/metadata.name", "NotIn");
            assert_eq!(excluded, ["kube-system", "kube-public", "kube-node-lease", "kagenti-system"]);
            assert_eq!(w.side_effects, "NoneOnDryRun");
            assert_eq!(w.timeout_seconds, Some(10));
            assert_eq!(w.reinvocation_policy.as_deref(), Some("IfNeeded"));
            assert_eq!(w.client_config.service.as_ref().unwrap().path.as_deref(), Some(PODS_PATH));
        }
        let strip = |w: &MutatingWebhook| MutatingWebhook {
            name: String::new(),
            namespace_selector: None,
            object_selector: None,
            ..w.clone()
        };
        assert_eq!(strip(a), strip(b));
    }

    #[test]
    fn the_url_form_appends_each_path() {
        let registration =
            Registration { address: Address::Url("https://127.0.0.1:9443/".into()), ..registration() };
        let urls: Vec<_> = registration
            .validating()
            .webhooks
            .unwrap()
            .into_iter()
            .map(|w| w.client_config.url.unwrap())
            .collect();
        let base = "https://127.0.0.1:9443";
        assert_eq!(urls, [format!("{base}{CARDS_PATH}"), format!("{base}{RUNTIMES_PATH}")]);
    }

    #[test]
    fn a_namespaced_install_lists_its_namespaces_in_every_entry() {
        let registration = Registration { namespaces: vec!["team1".into()], ..registration() };
        for w in registration.mutating().webhooks.unwrap() {
            let selector = w.namespace_selector.unwrap();
            assert_eq!(requirement_of(&selector, "kubernetes.io/metadata.name", "In"), ["team1"]);
        }
        for w in registration.validating().webhooks.unwrap() {
            let selector = w.namespace_selector.unwrap();
            assert_eq!(requirement_of(&selector, "kubernetes.io/metadata.name", "In"), ["team1"]);
        }
    }
}
