//! `deploy/` for kustomize says what the charts say (packaging §16).

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use chart_tests::{COMPONENTS, Helm, Objects, deploy, text};
use local_cluster::programs::{Program, Programs};
use local_cluster::terminal::Terminal;
use local_cluster::{Cluster, ClusterOptions};
use serde_json::Value;

use crate::difference;
use crate::install::{NOT_SERVED, ONE, apply_crds, dry_run};

const OVERLAYS: [&str; 4] = ["cert-manager", "dev", "namespaced", "openshift"];

/// `kubectl kustomize deploy/<folder>`.
fn kustomize(folder: &str) -> Result<Objects> {
    let programs = Programs::ensure(&[Program::Kubectl], Terminal::stderr())?;
    let path = deploy::folder().join(folder);
    let mut command = Command::new(programs.path(Program::Kubectl)?);
    let output = command.arg("kustomize").arg(&path).output().context("starting kubectl")?;
    ensure!(output.status.success(), "{folder}: {}", String::from_utf8_lossy(&output.stderr));
    Objects::parse(&String::from_utf8_lossy(&output.stdout))
}

/// What both are compared by: names of kustomize, one namespace, no label that says who manages the object.
fn plain(mut objects: Objects, release_namespace: &str) -> Objects {
    objects.0.retain(|object| text(object, "/kind") != "Namespace");
    for object in &mut objects.0 {
        let renamed = object
            .to_string()
            .replace("kagenti-operator-kagenti-operator-chart", "kagenti-operator")
            .replace(&format!("-kagenti-operator.{release_namespace}"), "")
            .replace(release_namespace, "<namespace>");
        *object = serde_json::from_str(&renamed).unwrap_or_default();
        without_helm(object);
    }
    objects
}

fn without_helm(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("helm.sh/chart");
            map.remove("app.kubernetes.io/managed-by");
            map.values_mut().for_each(without_helm);
        }
        Value::Array(list) => list.iter_mut().for_each(without_helm),
        _ => {}
    }
}

/// A chart as its users install it, without what only Helm runs.
fn rendered(chart: &str, namespace: &str, args: &[&str]) -> Result<Objects> {
    let all: Vec<&str> = ["--no-hooks"].into_iter().chain(args.iter().copied()).collect();
    Ok(plain(Helm::get()?.template(chart, "kagenti-operator", namespace, &all)?, namespace))
}

#[test]
fn deploy_is_generated() -> Result<()> {
    let (differing, strangers) = deploy::differing(&deploy::folder())?;
    let differing: Vec<_> = differing.into_keys().collect();
    assert!(differing.is_empty(), "run `cargo render-deploy`: {differing:?}");
    assert!(strangers.is_empty(), "nothing generates {strangers:?}");
    Ok(())
}

#[test]
fn packaging_23_the_default_is_the_umbrella() -> Result<()> {
    let default = kustomize("default")?;
    let namespaces = default.names("Namespace");
    assert_eq!(namespaces, [deploy::NAMESPACE]);
    for object in &default.0 {
        let whole = object.to_string();
        assert!(!whole.contains("helm.sh"), "{whole}");
        assert!(!whole.contains("\"Helm\""), "{whole}");
    }
    assert_eq!(default.of("Deployment").count(), 4);
    let umbrella = rendered(chart_tests::UMBRELLA, "kagenti-system", &[])?;
    assert_eq!(difference(&plain(default, deploy::NAMESPACE), &umbrella), Vec::<String>::new());
    Ok(())
}

#[test]
fn packaging_23_every_base_is_its_chart() -> Result<()> {
    for component in COMPONENTS {
        let base = plain(kustomize(&format!("base/{component}"))?, deploy::NAMESPACE);
        let chart = rendered(component, "kagenti-system", &[])?;
        assert!(chart.of("Deployment").count() == 1, "{component}");
        assert_eq!(difference(&base, &chart), Vec::<String>::new(), "{component}");
    }
    Ok(())
}

/// Patches lead to the same objects as the values they were made from.
#[test]
fn packaging_23_every_overlay_is_the_umbrella_with_its_values() -> Result<()> {
    for overlay in OVERLAYS {
        let values = deploy::folder().join("overlays").join(overlay).join("values.yaml");
        let values = format!("--values={}", values.display());
        let (built, release) = match overlay {
            "namespaced" => ("team1", "team1"),
            _ => (deploy::NAMESPACE, "kagenti-system"),
        };
        let overlaid = plain(kustomize(&format!("overlays/{overlay}"))?, built);
        let umbrella = rendered(chart_tests::UMBRELLA, release, &[&values])?;
        assert_eq!(difference(&overlaid, &umbrella), Vec::<String>::new(), "{overlay}");
    }
    Ok(())
}

/// What an administrator applies for tenants asks about their namespaces only, and about no other.
#[test]
fn the_webhooks_of_the_namespaced_overlay_name_its_namespaces() -> Result<()> {
    let file = deploy::folder().join("overlays/namespaced/webhooks.yaml");
    let objects = Objects::parse(&std::fs::read_to_string(file)?)?;
    let mut entries = 0;
    for webhook in objects.0.iter().flat_map(|object| object["webhooks"].as_array().into_iter().flatten()) {
        let named = webhook["namespaceSelector"]["matchExpressions"].as_array().into_iter().flatten().any(
            |expression| {
                text(expression, "/key") == "kubernetes.io/metadata.name"
                    && text(expression, "/operator") == "In"
                    && expression["values"] == serde_json::json!(["team1"])
            },
        );
        assert!(named, "{webhook}");
        assert_eq!(text(webhook, "/clientConfig/service/namespace"), "team1");
        assert_eq!(text(webhook, "/clientConfig/caBundle"), "Cg==");
        entries += 1;
    }
    assert_eq!(entries, 4, "two for Pods, two that validate");
    let overlay = kustomize("overlays/namespaced")?;
    let wide = ["ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration", "Namespace"];
    assert!(wide.iter().all(|kind| overlay.of(kind).next().is_none()), "{:?}", overlay.by_identity().keys());
    Ok(())
}

/// Documents for `kubectl apply -f -`, without kinds that nothing here defines.
fn documents(objects: &Objects) -> String {
    let served = objects.0.iter().filter(|object| !NOT_SERVED.contains(&text(object, "/kind")));
    served.map(ToString::to_string).collect::<Vec<_>>().join("\n---\n")
}

/// The blocks of commands below the heading of docs/install.md.
fn documented_commands() -> Result<Vec<String>> {
    let page = std::fs::read_to_string(deploy::folder().join("../docs/install.md"))?;
    let (_, section) = page.split_once("## With kustomize\n").context("a section about kustomize")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let blocks = section.split("```sh\n").skip(1).filter_map(|part| part.split_once("```"));
    Ok(blocks.map(|(commands, _)| commands.to_owned()).collect())
}

/// Every command of docs/install.md, in its order, on a real API server; every base and overlay passes it without a
/// warning.
#[tokio::test(flavor = "multi_thread")]
async fn packaging_23_the_server_accepts_what_kustomize_builds() -> Result<()> {
    let _one = ONE.lock().await;
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    // A place in which the paths of the page are right, and the file that its last command reads.
    let place = tempfile::tempdir()?;
    std::os::unix::fs::symlink(deploy::folder(), place.path().join("deploy"))?;
    std::fs::write(place.path().join("ca.crt"), "no certificate, but the server takes any bytes")?;
    let programs = cluster.kubectl_path().parent().context("the folder of kubectl")?.display().to_string();
    let run = |commands: &str| -> Result<()> {
        let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", commands]).current_dir(place.path());
        let output = shell.env("PATH", path).env("KUBECONFIG", cluster.kubeconfig()).output()?;
        ensure!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    let commands = documented_commands()?;
    let [install, keycloak, netpol, webhooks] = commands.as_slice() else {
        anyhow::bail!("the page has other commands than this test knows: {commands:#?}")
    };
    run(install)?;

    // Somebody changed a definition: without force the server names the conflict, with it ours is back.
    let name = "crd/agentcards.agent.kagenti.dev";
    let change = r#"{"spec":{"names":{"shortNames":["other"]}}}"#;
    cluster.kubectl(["patch", name, "--type=merge", "-p", change]).await?;
    let refused = run("kubectl apply --server-side -k deploy/crds");
    ensure!(refused.is_err(), "a field of somebody else was overwritten without force");
    run(install).context("a second time")?;
    let names = cluster.kubectl(["get", name, "-o", "jsonpath={.spec.names.shortNames}"]).await?;
    ensure!(names.contains("cards") && !names.contains("other"), "{names}");

    apply_crds(&cluster, "cert-manager").await?;
    cluster.kubectl(["create", "namespace", "team1"]).await?;
    let folders = COMPONENTS.iter().map(|component| format!("base/{component}"));
    for folder in folders.chain(OVERLAYS.iter().map(|overlay| format!("overlays/{overlay}"))) {
        let objects = documents(&kustomize(&folder)?);
        let said = dry_run(&cluster, &["--server-side"], &objects).with_context(|| folder.clone())?;
        ensure!(said.is_empty(), "{folder}: {said}");
    }

    cluster.kubectl(["create", "namespace", "keycloak"]).await?;
    run(keycloak)?;
    let account = format!("--as=system:serviceaccount:{}:controller-manager", deploy::NAMESPACE);
    let secret = ["auth", "can-i", "get", "secret/keycloak-initial-admin", "-n", "keycloak", &account];
    cluster.kubectl(secret).await.context("the account of the page is that of the Deployment")?;
    run("kubectl apply --server-side -k deploy/base/netpol-ctl")?;
    run(netpol)?;

    // A tenant, who is administrator of one namespace, and what he asks the administrator of the cluster for.
    let bind = ["-n", "team1", "create", "rolebinding", "tenant", "--clusterrole=admin", "--user=tenant"];
    cluster.kubectl(bind).await?;
    let limit = std::time::Duration::from_secs(30);
    local_cluster::wait_for(limit, "the tenant's rights to be aggregated", async || {
        let can = ["auth", "can-i", "create", "agentruntimes", "-n", "team1", "--as=tenant"];
        Ok(cluster.kubectl(can).await.is_ok().then_some(()))
    })
    .await?;
    run("kubectl apply --server-side --as=tenant -k deploy/overlays/namespaced").context("as a tenant")?;
    run(webhooks)
}
