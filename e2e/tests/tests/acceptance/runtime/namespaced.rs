//! Scenario 21: Roles only.

use std::collections::BTreeMap;

use anyhow::Result;
use api_types::names::condition;
use e2e::{Json as _, Options, Suite, kinds, objects, secs, suite};
use serde_json::Value;

use super::{WITHIN, assert_enrolled, settled};

#[tokio::test]
async fn runtime_21_namespaced() -> Result<()> {
    let options = Options::default()
        .without_webhook()
        .object("", objects::named(kinds::NAMESPACE, "inside"))
        .runtime_ctl([suite::runtime_ctl().namespaced(["inside"])]);
    let suite = Suite::own(options).await?;
    let global = suite.global().await?;
    assert!(
        !global.list(kinds::CLUSTER_ROLE_BINDING, "").await?.iter().any(|binding| {
            binding.items("/subjects").iter().any(|subject| subject.text("/name") == "runtime-ctl")
        }),
        "no cluster-wide right"
    );
    let outside = suite.namespace("outside", Value::Null).await?;
    let inside = global.other("inside");
    for ns in [&inside, &outside] {
        ns.create(objects::deployment("agent")).await?;
        ns.create(objects::agent_runtime("agent", "agent")).await?;
    }
    inside.until_ready(WITHIN, "agent").await?;
    let runtime =
        inside.until_condition(WITHIN, "agent", condition::ISTIO_MESH_ENROLLED, "Unknown/Forbidden").await?;
    assert_eq!(runtime.text("/status/phase"), "Active");
    // CSIDrivers cannot be read with Roles: the feature counts as absent (§19.4).
    assert_enrolled(&settled(&inside, kinds::DEPLOYMENT, "agent").await?, "agent", "disabled", "agent")?;

    let mark = suite.cluster().audit()?.mark()?;
    let untouched = outside.stays(secs(20), kinds::AGENT_RUNTIME, "agent").await?;
    assert!(untouched.texts("/metadata/finalizers").is_empty(), "{}", untouched.readable());
    assert!(untouched.pointer("/status").is_none(), "{}", untouched.readable());
    let mut refused: BTreeMap<(String, String), usize> = BTreeMap::new();
    for request in
        suite.cluster().audit()?.since(mark, |r| r.short_user() == "runtime-ctl" && r.code == 403)?
    {
        *refused.entry((request.verb, request.uri)).or_default() += 1;
    }
    assert!(refused.values().all(|count| *count <= 1), "forbidden requests in a loop: {refused:?}");
    Ok(())
}
