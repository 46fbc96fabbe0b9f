//! `kubectl kagenti uninstall --remove-finalizers`.

use anyhow::Result;
use e2e::{Json as _, Ns, Suite, kinds, objects, secs};
use serde_json::{Value, json};

use super::{BARE, OWN, Said, Tenant, admin, component, granted, of};

const UNINSTALL: [&str; 2] = ["uninstall", "--remove-finalizers"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    UNINSTALL.into_iter().chain(more.iter().copied()).collect()
}

/// An object with finalizers that somebody deletes.
async fn deleted(ns: &Ns, object: impl Into<Value>, finalizers: &[&str]) -> Result<()> {
    let mut object: Value = object.into();
    object["metadata"]["finalizers"] = json!(finalizers);
    let created = ns.create(object).await?;
    ns.delete(kinds::Kind::of(&created)?, created.name()).await
}

fn credentials(name: &str) -> Value {
    objects::named(kinds::SECRET, name)
        .annotation("kagenti.io/keycloak-url", "https://keycloak.example.com")
        .annotation("kagenti.io/keycloak-realm", "kagenti")
        .annotation("kagenti.io/keycloak-client-uuid", "0a1b")
        .annotation("kagenti.io/keycloak-scope-id", "2c3d")
        .with(json!({"data": {"client-secret.txt": "c2VjcmV0"}}))
        .build()
}

/// Everything that can wait for the suite, in one namespace.
async fn stuck(ns: &Ns) -> Result<()> {
    let workload = objects::deployment("weather").label("kagenti.io/type", "agent").replicas(0);
    ns.create(workload).await?;
    deleted(ns, objects::agent_runtime("weather", "weather"), &["kagenti.io/cleanup"]).await?;
    deleted(ns, objects::agent_runtime("held", "nobody"), &["example.com/hold", "kagenti.io/cleanup"])
        .await?;
    deleted(ns, objects::agent_runtime("foreign", "nobody"), &["example.com/hold"]).await?;
    let live = objects::agent_runtime("live", "live")
        .with(json!({"metadata": {"finalizers": ["kagenti.io/cleanup"]}}));
    ns.create(live).await?;
    deleted(ns, credentials("credentials"), &["kagenti.io/keycloak-client"]).await?;
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "weather"});
    let card = objects::named(kinds::AGENT_CARD, "weather").spec(json!({"targetRef": target}));
    let legacy = ["agentcard.kagenti.dev/finalizer", "agentcard.kagenti.dev/network-policy"];
    deleted(ns, card, &legacy).await
}

async fn finalizers(ns: &Ns, kind: kinds::Kind, name: &str) -> Result<Vec<String>> {
    let object = ns.get(kind, name).await?;
    Ok(object.texts("/metadata/finalizers").into_iter().map(str::to_owned).collect())
}

fn refused(said: &Said, why: &str) {
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{said:?}");
    assert!(said.err.contains("nothing was changed") && said.err.contains(why), "{}", said.err);
}

/// Packaging §15: what waits for the suite goes, nothing else does, and what stays behind is named. A Lease whose holder died
/// holds nothing up.
#[tokio::test]
async fn packaging_21_the_last_resort() -> Result<()> {
    let suite = BARE.alone().await?;
    let ns = suite.namespace("plugin-stuck", Value::Null).await?;
    let other = suite.namespace("plugin-stuck-other", Value::Null).await?;
    stuck(&ns).await?;
    deleted(&other, credentials("elsewhere"), &["kagenti.io/keycloak-client"]).await?;
    let operator = suite.operator().await?;
    let dead = objects::named(kinds::LEASE, "runtime-ctl.kagenti.dev").spec(json!({
        "holderIdentity": "dead", "leaseDurationSeconds": 2, "renewTime": "2026-01-01T00:00:00.000000Z",
    }));
    operator.create(dead).await?;

    // Nobody to ask, then a look: both change nothing.
    refused(&admin(&suite, &with(&["-n", ns.name()])).await?, "no terminal");
    let said = admin(&suite, &with(&["-n", ns.name(), "--dry-run", "-o", "json"])).await?;
    assert_eq!((said.code, said.json()?.items("/objects").len()), (Some(0), 4), "{said:?}");
    assert_eq!(finalizers(&ns, kinds::AGENT_RUNTIME, "weather").await?, ["kagenti.io/cleanup"]);

    let said = admin(&suite, &with(&["-n", ns.name(), "--yes", "-o", "json"])).await?;
    // `held` still waits for somebody else.
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("watching for up to 2s"), "{}", said.err);
    let report = said.json()?;
    assert_eq!(report.number("/notDeleted"), Some(1), "{}", report.readable());
    let runtimes: Vec<&Value> =
        report.items("/objects").iter().filter(|o| o.text("/kind") == "AgentRuntime").collect();
    let weather = runtimes.iter().find(|object| object.text("/name") == "weather").expect("weather");
    assert_eq!(weather.text("/result"), "deleted");
    assert!(
        weather.text("/staysBehind/0/what").starts_with("Deployment weather in namespace plugin-stuck stays")
    );
    let held = of(&report, "/objects", "held")?;
    assert_eq!(held.text("/result"), "held");
    assert!(held.text("/message").contains("finalizer example.com/hold is not the suite's"), "{held}");
    assert!(held.items("/staysBehind").is_empty(), "its workload is not there: {held}");
    let secret = of(&report, "/objects", "credentials")?;
    assert_eq!(secret.text("/result"), "deleted");
    assert_eq!(secret.text("/staysBehind/0/remedy"), "kcadm.sh delete clients/0a1b -r kagenti");
    assert_eq!(secret.text("/staysBehind/1/remedy"), "kcadm.sh delete client-scopes/2c3d -r kagenti");

    for (kind, name) in
        [(kinds::AGENT_RUNTIME, "weather"), (kinds::SECRET, "credentials"), (kinds::AGENT_CARD, "weather")]
    {
        ns.gone(secs(10), kind, name).await?;
    }
    assert_eq!(finalizers(&ns, kinds::AGENT_RUNTIME, "held").await?, ["example.com/hold"]);
    assert_eq!(finalizers(&ns, kinds::AGENT_RUNTIME, "foreign").await?, ["example.com/hold"]);
    assert_eq!(finalizers(&ns, kinds::AGENT_RUNTIME, "live").await?, ["kagenti.io/cleanup"]);
    assert_eq!(finalizers(&other, kinds::SECRET, "elsewhere").await?, ["kagenti.io/keycloak-client"]);

    // The command that is named takes the rest away.
    let remedy = weather.text("/staysBehind/0/remedy");
    let patch = remedy.split('\'').nth(1).expect("a patch in quotes");
    suite
        .cluster()
        .kubectl(["-n", ns.name(), "patch", "deployment", "weather", "--type=merge", "-p", patch])
        .await?;
    assert_eq!(ns.get(kinds::DEPLOYMENT, "weather").await?.label("kagenti.io/type"), None);

    // Live objects only when asked for; the rest of the cluster; then there is nothing.
    let said = admin(&suite, &with(&["-n", ns.name(), "--all", "--yes"])).await?;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("live   kagenti.io/cleanup   removed\n"), "{}", said.out);
    assert!(finalizers(&ns, kinds::AGENT_RUNTIME, "live").await?.is_empty());
    let said = admin(&suite, &with(&["--yes"])).await?;
    assert_eq!(said.code, Some(0), "{said:?}");
    other.gone(secs(10), kinds::SECRET, "elsewhere").await?;
    let said = admin(&suite, &UNINSTALL).await?;
    assert_eq!((said.code, said.out.as_str()), (Some(0), "No object waits for a finalizer of the suite.\n"));
    for name in ["held", "foreign"] {
        ns.patch(kinds::AGENT_RUNTIME, name, json!({"metadata": {"finalizers": null}})).await?;
    }
    operator.delete(kinds::LEASE, "runtime-ctl.kagenti.dev").await
}

/// Who would still clean up is named, be it a Deployment or whoever renews a Lease, and only for what it looks after.
#[tokio::test]
async fn packaging_21_the_last_resort_is_refused_while_somebody_is_left() -> Result<()> {
    let suite = BARE.alone().await?;
    let ns = suite.namespace("plugin-running", Value::Null).await?;
    deleted(&ns, objects::agent_runtime("weather", "weather"), &["kagenti.io/cleanup"]).await?;
    deleted(&ns, credentials("credentials"), &["kagenti.io/keycloak-client"]).await?;
    let args = with(&["-n", ns.name(), "--yes"]);

    let operator = suite.operator().await?;
    operator.create(component("runtime-ctl", OWN)).await?;
    operator.set_spec(kinds::DEPLOYMENT, "kagenti-runtime-ctl", json!({"replicas": 1})).await?;
    refused(
        &admin(&suite, &args).await?,
        "Deployment kagenti-runtime-ctl in namespace kagenti-system (0/1 ready)",
    );
    let elsewhere =
        json!([{"name": "runtime-ctl", "image": "x:0.1.0", "args": ["--watch-namespaces=team1"]}]);
    let elsewhere = json!({"replicas": 1, "template": {"spec": {"containers": elsewhere}}});
    operator.set_spec(kinds::DEPLOYMENT, "kagenti-runtime-ctl", elsewhere).await?;

    unreadable_lease(&suite, &ns).await?;
    let renewing = renew(&suite, "client-registration-ctl.kagenti.dev").await?;
    refused(
        &admin(&suite, &args).await?,
        "Lease client-registration-ctl.kagenti.dev in namespace kagenti-system is renewed by alive",
    );
    assert_eq!(finalizers(&ns, kinds::SECRET, "credentials").await?, ["kagenti.io/keycloak-client"]);
    let said = admin(&suite, &with(&["-n", ns.name(), "--yes", "--even-if-running"])).await?;
    assert_eq!(said.code, Some(0), "{said:?}");
    ns.gone(secs(10), kinds::SECRET, "credentials").await?;
    ns.gone(secs(10), kinds::AGENT_RUNTIME, "weather").await?;
    renewing.abort();
    operator.delete(kinds::LEASE, "client-registration-ctl.kagenti.dev").await?;
    operator.delete(kinds::DEPLOYMENT, "kagenti-runtime-ctl").await
}

/// A Lease that may be listed and not read is not known to be that of a dead holder.
async fn unreadable_lease(suite: &Suite, ns: &Ns) -> Result<()> {
    const LEASE: &str = "client-registration-ctl.kagenti.dev";
    let (global, operator) = (suite.global().await?, suite.operator().await?);
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "patch"]}]);
    let tenant = Tenant::new(suite, ns.name(), rules).await?;
    let rules = json!([
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["list"]},
    ]);
    let user = format!("tenant-of-{}", ns.name());
    let binding = json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "plugin-looks"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    global.create(objects::named(kinds::CLUSTER_ROLE, "plugin-looks").with(json!({"rules": rules}))).await?;
    global.create(objects::named(kinds::CLUSTER_ROLE_BINDING, "plugin-looks").with(binding)).await?;
    granted(suite, &["list", "leases.coordination.k8s.io", "--all-namespaces", "--as", &user]).await?;
    let spec = json!({"holderIdentity": "unseen", "leaseDurationSeconds": 2});
    operator.create(objects::named(kinds::LEASE, LEASE).spec(spec)).await?;

    let said = tenant.run(&with(&["-n", ns.name(), "--yes"])).await?;
    refused(
        &said,
        &format!("whether Lease {LEASE} in namespace kagenti-system is renewed by unseen: needs the right"),
    );
    assert_eq!(finalizers(ns, kinds::SECRET, "credentials").await?, ["kagenti.io/keycloak-client"]);
    operator.delete(kinds::LEASE, LEASE).await?;
    global.delete(kinds::CLUSTER_ROLE_BINDING, "plugin-looks").await?;
    global.delete(kinds::CLUSTER_ROLE, "plugin-looks").await
}

/// Somebody holds a Lease until the task is aborted.
async fn renew(suite: &Suite, name: &'static str) -> Result<tokio::task::JoinHandle<()>> {
    let operator = suite.operator().await?;
    let lease = |count: i64| {
        objects::named(kinds::LEASE, name).spec(json!({
            "holderIdentity": "alive", "leaseDurationSeconds": 15, "leaseTransitions": count,
        }))
    };
    operator.apply(lease(0)).await?;
    Ok(tokio::spawn(async move {
        for count in 1.. {
            tokio::time::sleep(secs(1)).await;
            // A refusal shows as a test that fails, for nobody renews any more.
            drop(operator.apply(lease(count)).await);
        }
    }))
}

/// With rights in one namespace it is unknown who runs elsewhere; what may not be looked at is never taken for clean.
#[tokio::test]
async fn packaging_21_the_last_resort_of_a_tenant() -> Result<()> {
    let suite = BARE.share().await?;
    let ns = suite.namespace("plugin-tenant", Value::Null).await?;
    deleted(&ns, objects::agent_runtime("weather", "weather"), &["kagenti.io/cleanup"]).await?;
    deleted(&ns, credentials("credentials"), &["kagenti.io/keycloak-client"]).await?;
    let rules = json!([{"apiGroups": ["agent.kagenti.dev"], "resources": ["agentruntimes"], "verbs": ["list", "patch"]}]);
    let tenant = Tenant::new(&suite, ns.name(), rules).await?;

    let args = with(&["-n", ns.name(), "--yes"]);
    let said = tenant.run(&args).await?;
    refused(&said, "needs the right to list deployments.apps in every namespace");
    assert!(said.err.contains("needs the right to list leases.coordination.k8s.io"), "{}", said.err);

    let said = tenant.run(&with(&["-n", ns.name(), "--yes", "--even-if-running"])).await?;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err.contains("unknown: which Secrets are stuck: needs the right to list secrets"),
        "{}",
        said.err
    );
    assert!(said.out.contains("unknown whether Deployment weather"), "{}", said.out);
    ns.gone(secs(10), kinds::AGENT_RUNTIME, "weather").await?;
    assert_eq!(finalizers(&ns, kinds::SECRET, "credentials").await?, ["kagenti.io/keycloak-client"]);

    let said = admin(&suite, &with(&["-n", ns.name(), "--yes", "--even-if-running"])).await?;
    assert_eq!(said.code, Some(0), "{said:?}");
    Ok(())
}
