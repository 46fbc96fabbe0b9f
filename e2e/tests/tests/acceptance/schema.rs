//! The CRDs on a real API server: what it refuses by itself, what it stores, what it prints (runtime §2, card §2).

use anyhow::Result;
use e2e::{Json as _, Ns, Options, Suite, kinds, objects};
use serde_json::{Value, json};

/// The API server's schema answers 422; a webhook would answer 403.
async fn invalid(ns: &Ns, object: objects::Object, field: &str) -> Result<()> {
    let reply = ns.refused(object).await?;
    assert_eq!(reply.status, 422, "{field}: {}", reply.message());
    assert!(reply.message().contains(field), "{field}: {}", reply.message());
    Ok(())
}

#[tokio::test]
async fn schema_crds_are_established() -> Result<()> {
    let suite = Suite::shared().await?;
    let global = suite.global().await?;
    for crd in api_types::crds::all() {
        let name = crd.metadata.name.unwrap_or_default();
        let live = global.get(kinds::CRD, &name).await?;
        for kind in ["NamesAccepted", "Established"] {
            assert_eq!(live.condition(kind).status, "True", "{name} {kind}");
        }
        assert_eq!(live.condition("NonStructuralSchema").status, "", "{name}: {}", live.readable());
        let version = &live["spec"]["versions"][0];
        assert_eq!(version.text("/name"), "v1alpha1");
        assert!(version.pointer("/subresources/status").is_some(), "{name} has a status subresource");
        assert_eq!(live.text("/spec/scope"), "Namespaced");
    }
    let columns = |crd: &Value| -> Vec<String> {
        let items = crd.items("/spec/versions/0/additionalPrinterColumns");
        items.iter().map(|column| column.text("/name").to_owned()).collect()
    };
    let short = |crd: &Value| -> Vec<String> {
        crd.texts("/spec/names/shortNames").into_iter().map(str::to_owned).collect()
    };
    let runtimes = global.get(kinds::CRD, "agentruntimes.agent.kagenti.dev").await?;
    assert_eq!(columns(&runtimes), ["Type", "Target", "Phase", "Ready", "Age"]);
    assert_eq!(short(&runtimes), ["art", "agentrt"]);
    let cards = global.get(kinds::CRD, "agentcards.agent.kagenti.dev").await?;
    assert_eq!(
        columns(&cards),
        [
            "Protocol",
            "Kind",
            "Target",
            "Agent",
            "Verified",
            "Sigstore",
            "Bound",
            "Synced",
            "LastSync",
            "Age",
            "AttestedAgent"
        ]
    );
    assert!(short(&cards).contains(&"cards".to_owned()), "{:?}", short(&cards));
    let policies = global.get(kinds::CRD, "authorizationpolicies.agent.kagenti.dev").await?;
    assert_eq!(columns(&policies), ["Scope", "ClientID", "Hash", "Age"]);
    assert_eq!(short(&policies), ["ap"]);
    Ok(())
}

#[tokio::test]
async fn schema_printed_columns() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("schema-columns", Value::Null).await?;
    ns.create(objects::agent_runtime("lonely", "nobody")).await?;
    ns.until_condition(e2e::secs(5), "lonely", "Ready", "False/TargetNotFound").await?;
    for name in ["art", "agentrt", "agentruntime", "agentruntimes"] {
        let table = suite.cluster().kubectl(["get", name, "-n", ns.name()]).await?;
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["NAME", "TYPE", "TARGET", "PHASE", "READY", "AGE"], "{name}");
        assert_eq!(rows[1][..5], ["lonely", "agent", "nobody", "Error", "False"], "{name}");
    }
    let explained = suite.cluster().kubectl(["explain", "agentruntime.spec.mtlsMode"]).await?;
    assert!(explained.contains("DESCRIPTION"), "{explained}");
    assert!(!explained.contains("<empty>"), "every field is described: {explained}");
    Ok(())
}

#[tokio::test]
async fn schema_agent_runtime_enums() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("schema-enums", Value::Null).await?;
    let optional =
        ["authBridgeMode", "mtlsMode", "tlsBridgeMode", "inboundInterception", "egressEnforcement"];
    for field in optional {
        for bad in ["", "other", "Strict"] {
            let object = objects::agent_runtime("bad", "x").spec(json!({field: bad}));
            invalid(&ns, object, &format!("spec.{field}")).await?;
        }
        // Not with a merge patch, which would leave the null out.
        let mut object = objects::agent_runtime(&field.to_lowercase(), field).build();
        object["spec"][field] = Value::Null;
        let stored = ns.create(object).await?;
        assert!(stored["spec"].get(field).is_none(), "null is unset: {}", stored.readable());
    }
    for bad in ["", "Agent", "server"] {
        invalid(&ns, objects::agent_runtime("bad", "x").spec(json!({"type": bad})), "spec.type").await?;
    }
    invalid(&ns, objects::agent_runtime("bad", "x").spec(json!({"type": null})), "spec.type").await?;
    invalid(&ns, objects::named(kinds::AGENT_RUNTIME, "bad"), "spec").await?;
    Ok(())
}

/// §2.2: the namespace layer must be reachable, so nothing is filled in.
#[tokio::test]
async fn schema_agent_runtime_has_no_defaults() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("schema-defaults", Value::Null).await?;
    let stored = ns.create(objects::agent_runtime("plain", "x")).await?;
    assert_eq!(
        stored["spec"],
        json!({"type": "agent", "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}})
    );
    let with_status = objects::agent_runtime("status", "y").with(json!({"status": {"phase": "Active"}}));
    assert!(ns.create(with_status).await?.pointer("/status/phase").is_none(), "status is a subresource");
    Ok(())
}

#[tokio::test]
async fn schema_agent_runtime_fields() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("schema-fields", Value::Null).await?;
    for field in ["apiVersion", "kind", "name"] {
        for bad in [json!(""), Value::Null] {
            let object = objects::agent_runtime("bad", "x").spec(json!({"targetRef": {field: bad}}));
            invalid(&ns, object, &format!("spec.targetRef.{field}")).await?;
        }
    }
    for bad in ["", "-a", "a-", "a b", ".", "exämple"] {
        let object =
            objects::agent_runtime("bad", "x").spec(json!({"identity": {"spiffe": {"trustDomain": bad}}}));
        invalid(&ns, object, "spec.identity.spiffe.trustDomain").await?;
    }
    for (index, good) in ["a", "example.org", "Prod-1.Example"].iter().enumerate() {
        let name = format!("good-{index}");
        let spec = json!({"identity": {"spiffe": {"trustDomain": good}}});
        ns.create(objects::agent_runtime(&name, &name).spec(spec)).await?;
    }
    let contradiction = json!({"tlsBridgeMode": "enabled", "authBridgeMode": "waypoint"});
    let object = objects::agent_runtime("bad", "x").spec(contradiction);
    invalid(&ns, object, "tlsBridgeMode=enabled requires authBridgeMode proxy-sidecar or lite").await?;
    // An update is held to the same rule.
    let lite = json!({"tlsBridgeMode": "enabled", "authBridgeMode": "lite"});
    ns.create(objects::agent_runtime("lite", "lite").spec(lite)).await?;
    let change = json!({"spec": {"authBridgeMode": "envoy-sidecar"}});
    assert_eq!(ns.try_patch(kinds::AGENT_RUNTIME, "lite", change).await?.status, 422);
    Ok(())
}

/// §2.3: conditions are a map by type; phase is an enum.
#[tokio::test]
async fn schema_agent_runtime_status() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("schema-status", Value::Null).await?;
    ns.create(objects::agent_runtime("plain", "x")).await?;
    let path = format!("{}/plain/status", kinds::AGENT_RUNTIME.path(Some(ns.name())));
    let condition = json!({
        "type": "Twice", "status": "True", "reason": "Because", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    for (bad, field) in [
        (json!({"conditions": [condition, condition]}), "status.conditions"),
        (json!({"phase": "Sleeping"}), "status.phase"),
        (json!({"conditions": [{"type": "Short"}]}), "status.conditions[0]"),
    ] {
        let body = json!({"status": bad});
        let reply = e2e::api::call(ns.client(), "PATCH", &path, e2e::api::MERGE_PATCH, Some(&body)).await?;
        assert_eq!(reply.status, 422, "{bad}");
        assert!(reply.message().contains(field), "{}", reply.message());
    }
    Ok(())
}

/// §2.5: the schema takes an AgentCard without spec (old objects have none); the validator is the one that asks for a
/// target, with 403 and not 422.
#[tokio::test]
async fn schema_agent_card() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("schema-cards", Value::Null).await?;
    let reply = ns.refused(objects::named(kinds::AGENT_CARD, "bare")).await?;
    assert_eq!(reply.status, 403, "{}", reply.message());
    assert!(reply.message().contains("vagentcard.kb.io"), "{}", reply.message());
    let target = json!({"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "weather"}});
    let stored = ns.create(objects::named(kinds::AGENT_CARD, "weather").spec(target.clone())).await?;
    assert_eq!(stored.text("/spec/syncPeriod"), "30s", "the schema's default");
    let bad = json!({"identityBinding": {"trustDomain": ""}});
    invalid(&ns, objects::named(kinds::AGENT_CARD, "bad").spec(target.clone()).spec(bad), "trustDomain")
        .await?;
    let empty = json!({"targetRef": {"name": ""}});
    invalid(&ns, objects::named(kinds::AGENT_CARD, "bad").spec(target).spec(empty), "spec.targetRef.name")
        .await?;
    Ok(())
}

/// The same without validator: it is stored, so lists of old objects keep working.
#[tokio::test]
async fn schema_agent_card_without_spec() -> Result<()> {
    let suite = Suite::own(Options::default().without_webhook().without_runtime_ctl()).await?;
    let ns = suite.namespace("old-cards", Value::Null).await?;
    let stored = ns.create(objects::named(kinds::AGENT_CARD, "bare")).await?;
    assert!(stored.get("spec").is_none(), "{}", stored.readable());
    assert_eq!(ns.list(kinds::AGENT_CARD, "").await?.len(), 1);
    Ok(())
}

/// §2.6.
#[tokio::test]
async fn schema_authorization_policy() -> Result<()> {
    let suite = Suite::shared().await?;
    let ns = suite.namespace("schema-policies", Value::Null).await?;
    let policy = |name: &str| {
        objects::named(kinds::AUTHORIZATION_POLICY, name)
            .spec(json!({"policies": [{"path": "authz/main.rego", "content": "package authz"}]}))
    };
    let stored = ns.create(policy("plain")).await?;
    assert_eq!(stored.text("/spec/scope"), "client", "the schema's default");
    ns.create(policy("scoped").spec(json!({"scope": "global", "clientID": "team1.weather_agent-2"}))).await?;

    invalid(&ns, policy("bad").spec(json!({"scope": "everyone"})), "spec.scope").await?;
    for bad in ["", "Upper", "-a", "a-", "a/b"] {
        invalid(&ns, policy("bad").spec(json!({"clientID": bad})), "spec.clientID").await?;
    }
    invalid(&ns, policy("bad").spec(json!({"clientID": "a".repeat(254)})), "spec.clientID").await?;
    invalid(&ns, policy("bad").spec(json!({"policies": []})), "spec.policies").await?;
    for bad in ["", "main.txt", "/main.rego", "Main.rego", ".rego"] {
        let policies = json!({"policies": [{"path": bad, "content": "package a"}]});
        invalid(&ns, policy("bad").spec(policies), "spec.policies[0].path").await?;
    }
    for bad in
        [json!({"path": "a.rego", "content": ""}), json!({"path": "a.rego"}), json!({"content": "package a"})]
    {
        invalid(&ns, policy("bad").spec(json!({"policies": [bad]})), "spec.policies[0]").await?;
    }
    Ok(())
}
