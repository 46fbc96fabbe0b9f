//! A real API server judges what Helm renders and installs. Pods of the fake nodes "run", Jobs end well at once.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use chart_tests::{Helm, Objects, charts, text};
use local_cluster::{Cluster, ClusterOptions};
use serde_json::{Value, json};

use crate::all_value_sets;

/// One cluster at a time: a test machine has two CPUs.
pub(crate) static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The namespaces that value sets name, and the definitions that optional parts need.
async fn cluster() -> Result<Cluster> {
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    cluster.install_crds().await?;
    for folder in ["cert-manager", "monitoring"] {
        apply_crds(&cluster, folder).await?;
    }
    for name in ["kagenti-system", "team1", "team2", "spire", "identity", "other"] {
        // Strict Pod security, and a warning for what would not pass.
        cluster
            .apply_yaml(&format!(
                "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{\
                 pod-security.kubernetes.io/enforce: restricted, pod-security.kubernetes.io/warn: restricted}}}}}}"
            ))
            .await?;
    }
    Ok(cluster)
}

/// Definitions of others, from the fixtures.
pub(crate) async fn apply_crds(cluster: &Cluster, folder: &str) -> Result<()> {
    cluster.install_crds_from(&charts().join("../e2e/fixtures").join(folder)).await
}

/// `kubectl apply --dry-run=server` with more flags; what it warns about.
pub(crate) fn dry_run(cluster: &Cluster, flags: &[&str], objects: &str) -> Result<String> {
    let mut child = Command::new(cluster.kubectl_path())
        .args(["apply", "--dry-run=server", "-f", "-"])
        .args(flags)
        .env("KUBECONFIG", cluster.kubeconfig())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting kubectl")?;
    child.stdin.take().context("its input")?.write_all(objects.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{said}");
    Ok(said)
}

/// Kinds whose definitions are not to be had: SPIRE's controller and OpenShift.
pub(crate) const NOT_SERVED: [&str; 2] = ["ClusterSPIFFEID", "SecurityContextConstraints"];

#[tokio::test(flavor = "multi_thread")]
async fn packaging_03_04_the_server_accepts_every_value_set_without_a_warning() -> Result<()> {
    let _one = ONE.lock().await;
    let cluster = cluster().await?;
    for (chart, file) in all_value_sets()? {
        let mut objects = crate::rendered(chart, &file)?;
        objects.0.retain(|object| !NOT_SERVED.contains(&text(object, "/kind")));
        // A Pod needs its account, also on a dry run.
        let accounts =
            objects.of("ServiceAccount").map(ToString::to_string).collect::<Vec<_>>().join("\n---\n");
        cluster.apply_yaml(&accounts).await?;
        let documents: Vec<String> = objects
            .0
            .iter()
            .filter(|object| text(object, "/kind") != "ServiceAccount")
            .map(ToString::to_string)
            .collect();
        let said = dry_run(&cluster, &[], &documents.join("\n---\n"))
            .with_context(|| format!("{chart} with {}", file.display()))?;
        ensure!(said.is_empty(), "{chart} with {}: {said}", file.display());
    }
    Ok(())
}

fn helm(kubeconfig: &Path, args: &[&str]) -> Result<String> {
    Helm::get()?.on(kubeconfig, args)
}

/// Two releases, a tenant's install, an upgrade that keeps what the webhook wrote, an uninstall.
#[tokio::test(flavor = "multi_thread")]
async fn packaging_07_08_releases_live_side_by_side() -> Result<()> {
    let _one = ONE.lock().await;
    let cluster = cluster().await?;
    let config = cluster.kubeconfig();
    let charts = Helm::get()?;
    let suite = charts.path("kagenti-operator").display().to_string();
    let install = ["install", "kagenti-operator", &suite, "-n", "kagenti-system"];
    let notes = helm(config, &install)?;
    ensure!(notes.contains("runtime-ctl") && notes.contains("in the whole cluster"), "{notes}");
    cluster.kubectl(["-n", "kagenti-system", "rollout", "status", "deployment", "--timeout=60s"]).await?;

    // A second release with other components, in another namespace: no name of the cluster is shared.
    let second: Vec<&str> = vec![
        "install",
        "second",
        &suite,
        "-n",
        "other",
        "--set=runtime-ctl.enabled=false,card-ctl.enabled=false",
        "--set=authbridge-webhook.enabled=false,client-registration-ctl.enabled=false,mlflow-ctl.enabled=true",
    ];
    helm(config, &second)?;

    // packaging 10: the webhook's own field survives an upgrade that changes others.
    let name = "kagenti-operator-kagenti-operator-chart-mutating-webhook-configuration";
    let authority = "jsonpath={.clusters[0].cluster.certificate-authority-data}";
    let authority = cluster.kubectl(["config", "view", "--raw", "-o", authority]).await?;
    ensure!(!authority.is_empty(), "the kubeconfig names an authority");
    let bundle = format!(
        "{{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingWebhookConfiguration, metadata: {{name: {name}}}, \
         webhooks: [{{name: inject.kagenti.io, clientConfig: {{caBundle: {authority}}}}}]}}"
    );
    let file = tempfile::NamedTempFile::with_suffix(".yaml")?;
    std::fs::write(file.path(), bundle)?;
    let path = file.path().display().to_string();
    let apply = ["apply", "--server-side", "--field-manager=authbridge-webhook/ca", "-f", &path];
    cluster.kubectl(apply).await.context("writing the bundle as the webhook does")?;
    let changed = "--set=authbridge-webhook.mutating.failurePolicy=Ignore";
    helm(config, &["upgrade", "kagenti-operator", &suite, "-n", "kagenti-system", changed])?;
    let path = "jsonpath={.webhooks[0].clientConfig.caBundle} {.webhooks[0].failurePolicy}";
    let after = cluster.kubectl(["get", "mutatingwebhookconfiguration", name, "-o", path]).await?;
    ensure!(after == format!("{authority} Ignore"), "{after}");

    // packaging 7: the administrator of one namespace, with no other right.
    let netpol = charts.path("netpol-ctl").display().to_string();
    let bind = ["-n", "team1", "create", "rolebinding", "tenant", "--clusterrole=admin", "--user=tenant"];
    cluster.kubectl(bind).await?;
    let tenant = [
        "install",
        "netpol",
        &netpol,
        "-n",
        "team1",
        "--set=watchNamespaces={team1},apiServerCidrs={10.0.0.1/32}",
        "--kube-as-user=tenant",
    ];
    let limit = std::time::Duration::from_secs(30);
    // Roles are aggregated a moment after the release that brings them.
    local_cluster::wait_for(limit, "the tenant's rights to be aggregated", async || {
        let can = ["auth", "can-i", "create", "agentruntimes", "-n", "team1", "--as=tenant"];
        Ok(cluster.kubectl(can).await.is_ok().then_some(()))
    })
    .await?;
    helm(config, &tenant).context("an install by the administrator of one namespace")?;
    let wide =
        ["install", "wide", &netpol, "-n", "team1", "--set=fullnameOverride=wide", "--kube-as-user=tenant"];
    let refused = helm(config, &wide).err().context("a tenant installed for the whole cluster")?;
    ensure!(format!("{refused:#}").contains("clusterroles"), "{refused:#}");

    // A webhook never injects beside itself; who would install it there is told.
    let webhook = charts.path("authbridge-webhook").display().to_string();
    let files = "--set=watchNamespaces={team1},tls.mode=files,tls.existingSecret=x";
    for (namespace, told) in [("team1", true), ("team1-admission", false)] {
        let said = helm(config, &["install", "w", &webhook, "-n", namespace, "--dry-run=client", files])?;
        ensure!(said.contains("Pods in team1 get no sidecars") == told, "{namespace}: {said}");
    }

    switched_off(&cluster, &suite).await.context("netpol-ctl of two namespaces is switched off")?;

    // packaging 8: one goes, the others stay.
    helm(config, &["uninstall", "second", "-n", "other"])?;
    let left = cluster.kubectl(["get", "deployments", "-A", "-o", "name"]).await?;
    ensure!(left.contains("kagenti-runtime-ctl") && left.contains("kagenti-netpol-ctl"), "{left}");
    ensure!(!left.contains("kagenti-mlflow-ctl"), "{left}");

    // packaging 21: nothing that could hold a Pod is left, definitions and objects stay.
    helm(config, &["uninstall", "kagenti-operator", "-n", "kagenti-system"])?;
    let hooks = "mutatingwebhookconfigurations,validatingwebhookconfigurations";
    let left = cluster.kubectl(["get", hooks, "-o", "name"]).await?;
    ensure!(!left.contains("kagenti"), "{left}");
    let crds = cluster.kubectl(["get", "crds", "agentruntimes.agent.kagenti.dev", "-o", "name"]).await?;
    ensure!(crds.contains("agentruntimes"), "{crds}");
    Ok(())
}

/// packaging 27: the upgrade that switches netpol-ctl off forgets its namespaces. The Job that deletes its policies keeps to them
/// all the same, or it would delete those of other releases.
async fn switched_off(cluster: &Cluster, suite: &str) -> Result<()> {
    let config = cluster.kubeconfig();
    let others = "runtime-ctl.enabled=false,card-ctl.enabled=false,authbridge-webhook.enabled=false,\
                  client-registration-ctl.enabled=false,kagenti-crds-agent.enabled=false";
    let namespaces = "global.watchNamespaces={team2,spire,gone}";
    let on = format!("--set={others},netpol-ctl.enabled=true,{namespaces}");
    let off = format!("--set={others},netpol-ctl.enabled=false");
    cluster.kubectl(["create", "namespace", "gone"]).await?;
    helm(config, &["install", "third", suite, "-n", "identity", &on])?;
    // A namespace that is gone has no policy, and can have no Role.
    cluster.kubectl(["delete", "namespace", "gone", "--timeout=60s"]).await?;
    helm(config, &["upgrade", "third", suite, "-n", "identity", "--reset-values", &off])?;
    let hooks = Objects::parse(&helm(config, &["get", "hooks", "third", "-n", "identity"])?)?;

    let job = hooks.named("Job", "kagenti-netpol-ctl-cleanup")?;
    ensure!(text(job, "/metadata/annotations/helm.sh~1hook") == "post-upgrade", "{job}");
    let args = job["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    for flag in ["--watch-namespaces=spire,team2", "--leader-elect=true", "--cleanup-and-exit=true"] {
        ensure!(args.contains(&format!("\"{flag}\"")), "{flag}: {args}");
    }
    ensure!(hooks.of("ClusterRole").chain(hooks.of("ClusterRoleBinding")).next().is_none(), "{hooks:?}");
    for kind in ["Role", "RoleBinding"] {
        let mut places: Vec<&str> = hooks.of(kind).map(|role| text(role, "/metadata/namespace")).collect();
        places.sort_unstable();
        ensure!(places == ["identity", "spire", "team2"], "{kind}: {places:?}");
    }
    // Its Lease is that of the component's chart with this list.
    let set = ["--set=watchNamespaces={spire,team2}"];
    let chart = Helm::get()?.template("netpol-ctl", "third", "identity", &set)?;
    let lease = |objects: &Objects| -> Vec<Value> {
        let rules = objects.of("Role").flat_map(|role| role["rules"].as_array().into_iter().flatten());
        let leases = rules.filter(|rule| rule["resources"] == json!(["leases"]));
        leases.map(|rule| rule["resourceNames"].clone()).collect()
    };
    ensure!(lease(&hooks) == lease(&chart), "{:?} {:?}", lease(&hooks), lease(&chart));
    helm(config, &["uninstall", "third", "-n", "identity"]).map(drop)
}
