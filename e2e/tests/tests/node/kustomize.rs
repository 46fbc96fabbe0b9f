//! `deploy/` by `kubectl apply -k`, as docs/install.md has it, without Helm.

use std::path::Path;

use anyhow::{Context as _, Result};
use e2e::{Json as _, Ns, kinds, secs};

use crate::node::RealNode;
use crate::release;

const QUICK_START: &str = include_str!("../../../../deploy/samples/quickstart.yaml");
/// The namespace that the kustomization brings.
const NAMESPACE: &str = "kagenti-operator-system";

/// Packaging 23: what kustomize applies is not only equal, it works: every Pod gets ready, the webhook publishes its
/// authority under its own name, an agent is injected and active.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn packaging_23_kustomize_installs_a_working_suite() -> Result<()> {
    let node = RealNode::own().await?;
    let cluster = node.cluster();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let folder = |name: &str| deploy.join(name).display().to_string();
    let (crds, default) = (folder("crds"), folder("default"));
    cluster.kubectl(["apply", "--server-side", "--force-conflicts", "-k", &crds]).await?;
    cluster.kubectl(["apply", "--server-side", "-k", &default]).await?;
    let ready = ["-n", NAMESPACE, "rollout", "status", "deployment", "--timeout=120s"];
    if let Err(error) = cluster.kubectl(ready).await {
        let seen = ["get", "pods,events", "--all-namespaces", "--output=wide"];
        return Err(error.context(cluster.kubectl(seen).await.unwrap_or_default()));
    }
    let ns = Ns::new(cluster.client().await?, "default");
    release::answers(&ns).await?;
    cluster.apply_yaml(QUICK_START).await?;
    ns.until(secs(60), kinds::AGENT_RUNTIME, "weather-agent-runtime", "Active", |found| {
        found.text("/status/phase") == "Active"
    })
    .await?;
    ns.until_list(secs(60), kinds::POD, "", "an injected Pod", |pods| {
        pods.iter().any(|pod| pod.container("authbridge-proxy").is_some())
    })
    .await?;
    // Applied again it changes nothing that a process wrote: the authority stays.
    let authority = "jsonpath={.webhooks[*].clientConfig.caBundle}";
    let name = "kagenti-operator-mutating-webhook-configuration";
    let bundle = ["get", "mutatingwebhookconfiguration", name, "-o", authority];
    let before = cluster.kubectl(bundle).await?;
    cluster.kubectl(["apply", "--server-side", "-k", &default]).await.context("a second time")?;
    assert_eq!(cluster.kubectl(bundle).await?, before);
    assert!(!before.trim().is_empty(), "the webhook published its authority");
    cluster.stop().await
}
