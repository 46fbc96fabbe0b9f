//! Scenario 14: linked skills.

use anyhow::Result;
use api_types::names::{annotation, condition};
use e2e::{Json as _, Ns, Options, Suite, kinds};
use serde_json::{Value, json};

use super::{WITHIN, enrolled};

async fn linked(ns: &Ns, wanted: &[&str]) -> Result<Value> {
    ns.until(WITHIN, kinds::AGENT_RUNTIME, "skilled", &format!("linkedSkills {wanted:?}"), |runtime| {
        runtime.texts("/status/linkedSkills") == wanted
    })
    .await
}

#[tokio::test]
async fn runtime_14_skills() -> Result<()> {
    let suite = Suite::own(Options::default().without_webhook().gates("skillDiscovery: true\n")).await?;
    let ns = suite.namespace("skills", Value::Null).await?;
    let before = enrolled(&ns, "skilled").await?;
    let annotate = |value: Value| {
        let ns = ns.clone();
        async move { ns.annotate(kinds::DEPLOYMENT, "skilled", json!({annotation::SKILLS: value})).await }
    };
    annotate(json!(r#"["a","b"]"#)).await?;
    linked(&ns, &["a", "b"]).await?;
    annotate(json!(r#"["b","b","c"]"#)).await?;
    linked(&ns, &["b", "b", "c"]).await?;
    annotate(Value::Null).await?;
    linked(&ns, &[]).await?;
    annotate(json!(r#"["a"]"#)).await?;
    linked(&ns, &["a"]).await?;
    annotate(json!("not-json")).await?;
    let runtime = linked(&ns, &[]).await?;
    assert_eq!(runtime.condition(condition::READY).short(), "True/Configured");
    let event = ns.until_event(WITHIN, "skilled", "SkillAnnotationParseError").await?;
    assert!(event.text("/note").starts_with("Failed to parse kagenti.io/skills annotation: "), "{event}");
    annotate(json!(r#"["a"]"#)).await?;
    linked(&ns, &["a"]).await?;
    assert_eq!(Ns::occurrences(&ns.events("skilled", "SkillAnnotationParseError").await?), 1);

    suite.set_gates("skillDiscovery: false\n").await?;
    let runtime = linked(&ns, &[]).await?;
    assert_eq!(runtime.condition(condition::READY).short(), "True/Configured");
    // Nothing of this restarts anything.
    let after = ns.get(kinds::DEPLOYMENT, "skilled").await?;
    assert_eq!(after.template(), before.template());
    assert_eq!(after.annotation(annotation::SKILLS), Some(r#"["a"]"#), "never written by the suite");
    Ok(())
}
