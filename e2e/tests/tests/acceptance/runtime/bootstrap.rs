//! Scenario 18: copies of the templates.

use anyhow::Result;
use api_types::names::{MANAGED_BY_OPERATOR, label};
use e2e::suite::OPERATOR_NAMESPACE;
use e2e::{Json as _, Options, Suite, kinds, objects, secs};
use serde_json::{Value, json};

use super::{WITHIN, assert_active};

#[tokio::test]
async fn runtime_18_bootstrap() -> Result<()> {
    let runtime_template =
        objects::config_map("authbridge-runtime-config", json!({"config.yaml": "mode: lite\n"}));
    let helper_template =
        objects::config_map("spiffe-helper-config", json!({"helper.conf": "agent_address = \"\"\n"}));
    let identity_template = objects::config_map("authbridge-config", json!({"KEYCLOAK_REALM": "template"}));
    let options = Options::default()
        .without_webhook()
        .object(OPERATOR_NAMESPACE, runtime_template.label("example.com/chart", "x"))
        .object(OPERATOR_NAMESPACE, identity_template);
    let suite = Suite::own(options).await?;
    let operator = suite.operator().await?;

    // One template missing: nothing is made of it, and the enrolment is Ready.
    let first = suite.namespace("first", Value::Null).await?;
    first.create(objects::deployment("one")).await?;
    first.create(objects::agent_runtime("one", "one")).await?;
    assert_active(&first.until_ready(WITHIN, "one").await?);
    let copy = first.get(kinds::CONFIG_MAP, "authbridge-runtime-config").await?;
    assert_eq!(copy.text("/data/config.yaml"), "mode: lite\n");
    assert_eq!(copy.pointer("/metadata/labels"), Some(&json!({label::MANAGED_BY: MANAGED_BY_OPERATOR})));
    assert!(copy.pointer("/metadata/ownerReferences").is_none());
    assert!(first.find(kinds::CONFIG_MAP, "spiffe-helper-config").await?.is_none());

    // An existing copy with other content stays; both templates are there now.
    operator.create(helper_template).await?;
    let second = suite.namespace("second", json!({"kagenti-enabled": "true"})).await?;
    let own =
        objects::config_map("authbridge-runtime-config", json!({"config.yaml": "mode: proxy-sidecar\n"}));
    second.create(own).await?;
    second.create(objects::deployment("two")).await?;
    second.create(objects::agent_runtime("two", "two")).await?;
    second.until_ready(WITHIN, "two").await?;
    let kept = second.get(kinds::CONFIG_MAP, "authbridge-runtime-config").await?;
    assert_eq!(kept.text("/data/config.yaml"), "mode: proxy-sidecar\n");
    assert_eq!(kept.label(label::MANAGED_BY), None);
    let helper =
        second.until(WITHIN, kinds::CONFIG_MAP, "spiffe-helper-config", "the copy", |_| true).await?;
    assert_eq!(helper.label(label::MANAGED_BY), Some(MANAGED_BY_OPERATOR));

    // A copy is never updated afterwards.
    operator
        .patch(
            kinds::CONFIG_MAP,
            "authbridge-runtime-config",
            json!({"data": {"config.yaml": "mode: envoy-sidecar\n"}}),
        )
        .await?;
    first
        .holds(secs(4), kinds::CONFIG_MAP, "authbridge-runtime-config", "the copy", |copy| {
            copy.text("/data/config.yaml") == "mode: lite\n"
        })
        .await?;
    // README decisions 2 and 13: that one belongs to client-registration-ctl, labelled namespace or not.
    for ns in [&first, &second] {
        assert!(
            ns.find(kinds::CONFIG_MAP, "authbridge-config").await?.is_none(),
            "authbridge-config in {}",
            ns.name()
        );
    }
    Ok(())
}
