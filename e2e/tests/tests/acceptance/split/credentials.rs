//! The part of scenario 11 that needs no Keycloak: credentials come from exactly one source, and the label moves a
//! workload between them.

use anyhow::Result;
use e2e::Json as _;
use serde_json::json;

use super::fixture::{REGISTRATION, split};
use crate::webhook::fixture::{CREDENTIALS, agent_pod, create_pod, expect_warning};

#[tokio::test]
async fn split_11_one_source_of_credentials() -> Result<()> {
    let (_suite, ns) = split("split-11").await?;
    // Managed by the operator until now: the annotation is left over on the template.
    let old = "kagenti-keycloak-client-credentials-0123456789abcdef";
    let left_over = agent_pod("left-over").annotation(CREDENTIALS, old).label(REGISTRATION, "true");
    let (pod, warnings) = create_pod(&ns, left_over).await?;
    assert!(pod.container("kagenti-client-registration").is_ok());
    assert!(pod.volume(old).is_null(), "the container writes these files itself");
    assert_eq!(pod.annotation(CREDENTIALS), old, "it stays, unused");
    assert_eq!(pod.plan()?["registration"], "sidecar");
    expect_warning(&warnings, "left over")?;

    // The label goes: the Secret is mounted again.
    let (pod, warnings) = create_pod(&ns, agent_pod("back").annotation(CREDENTIALS, old)).await?;
    assert!(pod.container("kagenti-client-registration").is_err());
    assert_eq!(pod.volume(old).text("/secret/secretName"), old);
    assert_eq!(pod.plan()?["registration"], "operator");
    assert!(warnings.is_empty(), "{warnings:?}");

    // A Secret of the user's own beats the label.
    let own = agent_pod("own").annotation(CREDENTIALS, "my-client").label(REGISTRATION, "true");
    let (pod, warnings) = create_pod(&ns, own).await?;
    assert!(pod.container("kagenti-client-registration").is_err());
    assert_eq!(pod.volume("my-client").text("/secret/secretName"), "my-client");
    assert_eq!(pod.plan()?["registration"], "user");
    assert_eq!(warnings.len(), 1, "{warnings:?}");

    // The password must not be readable from the agent's process list.
    let shared = agent_pod("shared").label(REGISTRATION, "true").spec(json!({"shareProcessNamespace": true}));
    let reply = ns.refused(shared).await?;
    assert_eq!(reply.status, 403, "{}", reply.message());
    assert!(reply.message().contains("shareProcessNamespace"), "{}", reply.message());
    Ok(())
}
