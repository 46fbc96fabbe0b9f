//! Scenario 9: a container of the user's own called `spiffe-helper`.

use anyhow::Result;
use e2e::Json as _;
use e2e::admission::{patch_of, patched};
use serde_json::json;

use super::fixture::split;
use crate::webhook::fixture::{agent_pod, expect_warning};

#[tokio::test]
async fn split_09_own_helper() -> Result<()> {
    let (suite, ns) = split("split-09").await?;
    let own = json!([
        e2e::objects::container(8000),
        {"name": "spiffe-helper", "image": "example.com/own-helper:1"},
    ]);
    let pod = agent_pod("own").spec(json!({"containers": own})).build();
    let admission = suite.admission(0).await?;
    let first = admission.pod(ns.name(), pod.clone()).await?;
    assert_eq!(first["allowed"], true, "{first}");
    let warnings: Vec<String> = first.texts("/warnings").into_iter().map(str::to_owned).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    expect_warning(&warnings, "spiffe-helper")?;
    let injected = patched(&pod, &first)?;
    let names: Vec<&str> = injected.items("/spec/containers").iter().map(|item| item.text("/name")).collect();
    assert_eq!(names, ["agent", "spiffe-helper", "envoy-proxy"]);
    assert_eq!(
        injected.container("spiffe-helper").and_then(|helper| helper.get("image")),
        Some(&json!("example.com/own-helper:1")),
        "the user's own one is left alone"
    );

    let second = admission.pod(ns.name(), injected).await?;
    assert_eq!(second["allowed"], true, "{second}");
    assert_eq!(second.text("/status/message"), "already injected");
    assert!(patch_of(&second)?.0.is_empty(), "{second}");

    // The same through the API server: what it stores is what the webhook answered.
    let stored = ns.create(pod).await?;
    assert!(stored.container("envoy-proxy").is_some());
    let containers = stored.items("/spec/containers");
    let helpers = containers.iter().filter(|container| container.text("/name") == "spiffe-helper");
    assert_eq!(helpers.count(), 1);
    Ok(())
}
