//! Images (packaging §13).

use anyhow::Result;
use e2e::{Json as _, kinds, objects, secs};
use local_cluster::images::{Profile, file_in_image};
use serde_json::{Value, json};

use crate::node::RealNode;

/// A container of an image that prints its version; `user` is anybody's number, or the image's own without one.
fn container(name: &str, image: &str, user: Option<i64>) -> Value {
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
        "args": ["version"],
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
    // One after the other: a node starts a handful of containers at once, not dozens.
    for image in &node.built().images {
        let name = &image.program;
        assert!(image.size <= Profile::Quick.budget(), "{name} has {} bytes", image.size);
        assert!(file_in_image(&image.file, "licenses/LICENSE")?.is_some(), "{name}");
        let notices = file_in_image(&image.file, "licenses/THIRD-PARTY-NOTICES.txt")?.unwrap_or_default();
        let heading = format!("Third-party notices of {name}\n");
        assert!(notices.starts_with(heading.as_bytes()), "{name}");
        let containers = json!([
            container("own", &image.reference, None),
            container("any", &image.reference, Some(1_000_660_000)),
        ]);
        // On a starved machine the runtime gives up starting a container; the kubelet then tries again.
        let pod = objects::named(kinds::POD, name).spec(json!({
            "restartPolicy": "OnFailure",
            "automountServiceAccountToken": false,
            "containers": containers,
        }));
        ns.create(pod).await?;
        ns.until(secs(90), kinds::POD, name, "its end", |pod| pod.text("/status/phase") == "Succeeded")
            .await?;
        for container in ["own", "any"] {
            let logs = ["logs", "--namespace=images", name, "--container", container];
            let said = node.cluster().kubectl(logs).await?;
            assert!(said.contains(env!("CARGO_PKG_VERSION")), "{name}: {said}");
            assert!(said.contains(&image.revision), "{name}: {said}");
        }
        let shell = json!([{
            "name": "shell",
            "image": image.reference,
            "imagePullPolicy": "Never",
            "command": ["/bin/sh", "-c", "true"],
        }]);
        let name = format!("{name}-shell");
        let pod = objects::named(kinds::POD, &name).spec(json!({"containers": shell}));
        let ns = ns.other("default");
        ns.create(pod).await?;
        // The runtime says so each time it tries to start it.
        ns.until(secs(60), kinds::POD, &name, "the missing shell", |pod| {
            ["state/terminated", "lastState/terminated"].iter().any(|state| {
                pod.text(&format!("/status/containerStatuses/0/{state}/message")).contains("/bin/sh")
            })
        })
        .await?;
        ns.delete(kinds::POD, &name).await?;
    }
    Ok(())
}
