//! The CustomResourceDefinitions of group `agent.kagenti.dev`, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use crate::{AgentCardDefinition, AgentRuntime, AuthorizationPolicy};

/// All definitions, in the order of their names.
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut all = vec![
        without_required_spec(AgentCardDefinition::crd()),
        AgentRuntime::crd(),
        AuthorizationPolicy::crd(),
    ];
    for version in all.iter_mut().flat_map(|crd| &mut crd.spec.versions) {
        if let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
            null_means_unset(schema);
        }
    }
    all
}

/// `null` means unset (runtime §2.2). The API server drops a null where nothing says `nullable`; where something does
/// it keeps the null, and refuses it for an enum even when the enum lists null.
fn null_means_unset(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(values) = &mut schema.enum_ {
        values.retain(|value| !value.0.is_null());
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(null_means_unset);
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        null_means_unset(values);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        null_means_unset(items);
    }
}

/// An AgentCard requires nothing at its top level (card §2), so that old objects stay readable and deletable.
fn without_required_spec(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
            schema.required = None;
            schema.title = None;
        }
    }
    crd
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_condition_list_is_a_map_by_type() {
        for crd in all() {
            let status = crd.spec.versions.first().and_then(|v| v.schema.as_ref()).and_then(|s| {
                let root = s.open_api_v3_schema.as_ref()?.properties.as_ref()?.get("status")?;
                root.properties.as_ref()?.get("conditions").cloned()
            });
            let conditions = status.expect("conditions in the schema");
            assert_eq!(conditions.x_kubernetes_list_type.as_deref(), Some("map"), "{:?}", crd.metadata.name);
            assert_eq!(conditions.x_kubernetes_list_map_keys, Some(vec!["type".to_owned()]));
        }
    }

    /// runtime §2.2: absent or null means unset.
    #[test]
    fn nothing_is_nullable_and_no_enum_lists_null() {
        let text = serde_json::to_string(&all()).unwrap();
        assert!(!text.contains(r#""nullable":true"#));
        assert!(!text.contains(",null]"));
    }

    #[test]
    fn modes_have_no_schema_default() {
        // runtime §2.2: a stored default would make the namespace layer unreachable.
        let yaml = serde_json::to_value(AgentRuntime::crd()).unwrap();
        let spec =
            yaml.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties").unwrap();
        for field in
            ["mtlsMode", "tlsBridgeMode", "authBridgeMode", "inboundInterception", "egressEnforcement"]
        {
            assert!(spec[field].is_object(), "{field}");
            assert_eq!(spec[field].get("default"), None, "{field}");
        }
    }

    #[test]
    fn only_agent_card_may_lack_its_spec() {
        let required = |crd: &CustomResourceDefinition| {
            serde_json::to_value(crd)
                .unwrap()
                .pointer("/spec/versions/0/schema/openAPIV3Schema/required")
                .cloned()
        };
        let [card, runtime, policy] = &all()[..] else { panic!("three kinds") };
        assert_eq!(required(card), None);
        assert_eq!(required(runtime), Some(serde_json::json!(["spec"])));
        assert_eq!(required(policy), Some(serde_json::json!(["spec"])));
    }
}
