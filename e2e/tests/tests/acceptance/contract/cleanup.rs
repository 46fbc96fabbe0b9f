//! client-registration-ctl leaves no Secret behind that only it could let go (client-registration §10, packaging §15).

use e2e::{Json as _, kinds, objects, secs};
use local_cluster::Component;
use serde_json::json;

use super::*;

const PROGRAM: &str = "client-registration-ctl";
const FINALIZER: &str = "kagenti.io/keycloak-client";

/// The chart's hook, with Roles only: it runs beside the controller, and must win. The Secrets stay, and can be deleted.
#[tokio::test]
async fn client_registration_10_cleanup_and_exit() -> Result<()> {
    let suite = CLUSTER.share().await?;
    let stage = Stage::new(&suite, "contract-cleanup").await?;
    let (ns, other) = (&stage.ns, suite.namespace("contract-cleanup-other", json!({})).await?);
    let name = "kagenti-keycloak-client-credentials-0123456789abcdef";
    let secret = objects::named(kinds::SECRET, name)
        .label("app.kubernetes.io/managed-by", "kagenti-operator")
        .with(json!({"metadata": {"finalizers": [FINALIZER, "example.com/mine"]}}));
    for place in [ns, &other] {
        place.create(secret.clone()).await?;
    }
    let run = |replica: &str, args: &[&str]| {
        let options = options(&suite, PROGRAM).namespace(ns.name()).namespaced([ns.name()]);
        Component::start(suite.cluster(), named(options, replica).args(args.iter().copied()))
    };
    let controller = run("clients", &["--leader-elect", "--cluster-id=c"]).await?;
    controller.wait_ready(secs(30)).await?;
    let hook = run("clients-hook", &["--leader-elect", "--cluster-id=c", "--cleanup-and-exit"]).await?;
    let exit = hook.ended().await?;
    assert_eq!(exit.code, Some(0), "{}", hook.log());
    assert!(hook.log().contains("from 1 Secrets"), "{}", hook.log());
    assert_eq!(ns.get(kinds::SECRET, name).await?.texts("/metadata/finalizers"), ["example.com/mine"]);
    let left = other.get(kinds::SECRET, name).await?;
    assert_eq!(left.texts("/metadata/finalizers"), [FINALIZER, "example.com/mine"], "not in its scope");
    let exit = controller.ended().await?;
    assert_eq!(exit.code, Some(1), "the controller lost its Lease: {exit:?}");
    for place in [ns, &other] {
        place.patch(kinds::SECRET, name, json!({"metadata": {"finalizers": null}})).await?;
    }
    Ok(())
}
