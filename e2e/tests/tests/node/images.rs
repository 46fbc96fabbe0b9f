//! Images (packaging §13).

use anyhow::{Context as _, Result};
use e2e::{Json as _, kinds, objects, secs};
use local_cluster::images::suite;
use serde_json::{Value, json};

use crate::node::RealNode;

/// A container of an image that prints its version; `user` is anybody's number, or the image's own without one.
fn container(name: &str, image: &str, program: &str, user: Option<i64>) -> Value {
    let version = if program == "agentcard-signer" { "--version" } else { "version" };
    let mut security = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    if let Some(user) = user {
        security["runAsUser"] = user.into();
    }
    json!({
        "name": name,
        "image": image,
        "imagePullPolicy": "Never",
        "args": [version],
        "securityContext": security,
    })
}

/// Packaging 20: small, not root by number, any user, nothing writable, admitted as `restricted`, and it says what it is.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn packaging_20_image() -> Result<()> {
    let node = RealNode::shared().await?;
    let level = "pod-security.kubernetes.io/enforce";
    let ns = node.namespace("images", json!({level: "restricted"})).await?;
    for image in &node.built().images {
        assert!(image.size <= suite::BUDGET, "{} has {} bytes", image.program, image.size);
        let containers = json!([
            container("own", &image.reference, &image.program, None),
            container("any", &image.reference, &image.program, Some(1_000_660_000)),
        ]);
        let pod = objects::named(kinds::POD, &image.program)
            .spec(json!({"restartPolicy": "Never", "automountServiceAccountToken": false, "containers": containers}));
        ns.create(pod).await?;
    }
    for image in &node.built().images {
        let name = &image.program;
        ns.until(secs(90), kinds::POD, name, "its end", |pod| pod.text("/status/phase") == "Succeeded")
            .await?;
        for container in ["own", "any"] {
            let said = node
                .cluster()
                .kubectl(["logs", "--namespace=images", name, "--container", container])
                .await?;
            assert!(said.contains(env!("CARGO_PKG_VERSION")), "{name}: {said}");
            if name != "agentcard-signer" {
                assert!(said.contains(&image.revision), "{name}: {said}");
            }
        }
        let shell = json!([{
            "name": "shell",
            "image": image.reference,
            "imagePullPolicy": "Never",
            "command": ["/bin/sh", "-c", "true"],
        }]);
        let pod = objects::named(kinds::POD, &format!("{name}-shell"))
            .spec(json!({"restartPolicy": "Never", "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}, "containers": shell}))
            .build();
        let ns = ns.other("default");
        ns.create(pod).await.with_context(|| format!("a Pod of {name} with a shell"))?;
        let why = "/status/containerStatuses/0/state/terminated/message";
        let what = "the missing shell";
        ns.until(secs(60), kinds::POD, &format!("{name}-shell"), what, |pod| {
            pod.text(why).contains("/bin/sh")
        })
        .await?;
    }
    Ok(())
}
