//! From the previous operator to the suite, under the same release name (packaging §4, §15). That operator is not to be had:
//! `e2e/fixtures/existing` has what its chart leaves in a cluster, and the test renews its Lease.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use api_types::names::{annotation, condition, configmap, finalizer, label};
use api_types::{config_hash, credentials};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::kinds::Kind;
use e2e::old_operator::{LEASE, OldOperator};
use e2e::{Json as _, Ns, Stopwatch, api, json as patches, kinds, objects, secs, suite, wait_for};
use local_cluster::components;
use local_cluster::{ApiRequest, Mark, Profile};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::chart::{Helm, NAMESPACE, RELEASE};
use crate::node::RealNode;
use crate::release::{helm_run, lives, until_ready, until_readyz};

const PLACE: &str = "--namespace=kagenti-system";
/// Leader election of the old operator.
const LEASE_SECONDS: u32 = 15;
const AGENTS: usize = 10;
const SERVING: &str = "kagenti-operator-webhook-server-cert";
const MUTATING: &str = "kagenti-operator-kagenti-operator-chart-mutating-webhook-configuration";
const VALIDATING: &str = "kagenti-operator-kagenti-operator-chart-validating-webhook-configuration";
const SERVICE: &str = "kagenti-operator-kagenti-operator-chart-webhook-service";

fn agent(number: usize) -> String {
    format!("agent-{number}")
}

fn yaml(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("reading {}", path.display()))
}

/// What its user had set: one key that is elsewhere now, two that are where they were.
fn old_values() -> Value {
    json!({
        "keycloak": {"publicUrl": "https://id.example.com"},
        "featureGates": {"injectTools": true},
        "defaults": {"observability": {"logLevel": "debug"}},
    })
}

/// The previous chart with its default values and definitions.
fn old_chart(helm: &Helm, dir: &TempDir) -> Result<PathBuf> {
    let (chart, new) = (dir.path().join("existing"), helm.chart());
    let fixture = suite::fixture("existing");
    std::fs::create_dir_all(chart.join("templates"))?;
    std::fs::create_dir_all(chart.join("crds"))?;
    std::fs::copy(fixture.join("Chart.yaml"), chart.join("Chart.yaml"))?;
    for entry in std::fs::read_dir(fixture.join("templates"))? {
        let entry = entry?;
        std::fs::copy(entry.path(), chart.join("templates").join(entry.file_name()))?;
    }
    // Of its values, these two are still the chart's own.
    let mut values = yaml(&new.join("ci/existing-values.yaml"))?;
    let own = yaml(&new.join("values.yaml"))?;
    for key in ["defaults", "featureGates"] {
        values[key] = own[key].clone();
    }
    std::fs::write(chart.join("values.yaml"), values.to_string())?;
    for entry in std::fs::read_dir(new.with_file_name("kagenti-crds-agent").join("crds"))? {
        let entry = entry?;
        let crd = old_definition(yaml(&entry.path())?);
        std::fs::write(chart.join("crds").join(entry.file_name()), crd.to_string())?;
    }
    Ok(chart)
}

/// A definition as the previous operator had it: no phase, no lists by key, two defaults (runtime §2, §21).
fn old_definition(mut crd: Value) -> Value {
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties";
    patches::merge(&mut crd, json!({"metadata": {"annotations": null}}));
    if crd.text("/spec/names/plural") == "agentruntimes" {
        let mut fields = json!({"spec": {"properties": {"inboundInterception": null,
            "mtlsMode": {"default": "permissive"}, "tlsBridgeMode": {"default": "disabled"}}}});
        fields["status"] = json!({"properties": {"phase": null, "conditions":
            {"x-kubernetes-list-type": null, "x-kubernetes-list-map-keys": null}}});
        if let Some(properties) = crd.pointer_mut(schema) {
            patches::merge(properties, fields);
        }
        let columns = "/spec/versions/0/additionalPrinterColumns";
        if let Some(columns) = crd.pointer_mut(columns).and_then(Value::as_array_mut) {
            columns.retain(|column| column.text("/jsonPath") != ".status.phase");
        }
    }
    crd
}

struct Migration {
    node: RealNode,
    helm: Helm,
    /// The plugin. Built before there is an old operator, whose Lease a machine that compiles might not renew in time.
    plugin: PathBuf,
    dir: TempDir,
    all: Ns,
    /// Where the release is.
    release: Ns,
    /// Where the agents are.
    team: Ns,
}

/// What must be the same afterwards.
#[derive(Debug, PartialEq)]
struct Kept {
    configuration: Vec<Value>,
    templates: Vec<Value>,
    pods: BTreeMap<String, (String, i64)>,
}

/// Packaging 17.
#[tokio::test]
#[ignore = "needs root: just e2e-node"]
async fn packaging_17_migration() -> Result<()> {
    let migration = Migration::start().await?;
    let certificate = migration.old_release().await?;
    let old = OldOperator::start(&migration.release, LEASE_SECONDS).await?;
    migration.old_agents().await?;
    let before = migration.kept().await?;
    ensure!(before.pods.len() == AGENTS, "{before:?}");

    migration.old_values_are_refused().await?;
    let mark = migration.node.cluster().audit()?.mark()?;
    migration.upgrade().await?;
    migration.guarded(mark).await?;
    old.stop().await?;
    let expiry = Stopwatch::start();
    for number in 0..AGENTS {
        let limit = secs(120 + u64::from(LEASE_SECONDS)).saturating_sub(expiry.spent());
        migration.team.until_ready(limit, &agent(number)).await?;
    }
    eprintln!("all ready {:.1} s after the old operator went, stalls left out", expiry.spent().as_secs_f64());
    until_ready(&migration.release, secs(60)).await?;
    migration.assert_kept(&before).await?;
    migration.old_objects_are_gone().await?;
    migration.inject_authority(&certificate).await?;
    migration.admission_works().await?;
    migration.own_certificates(&certificate).await?;
    migration.assert_kept(&before).await?;
    migration.node.cluster().stop().await
}

impl Migration {
    async fn start() -> Result<Self> {
        let plugin = tokio::task::spawn_blocking(|| components::build(&["kubectl-kagenti"], Profile::Same));
        let plugin = plugin.await.context("building the plugin")??.path("kubectl-kagenti")?.to_owned();
        let node = RealNode::own().await?;
        node.cluster().install_crds_from(&suite::fixture("cert-manager")).await?;
        let helm = Helm::new(&node.built().helm, node.cluster()).await?;
        let all = Ns::cluster(node.cluster().client().await?);
        all.create(objects::spiffe_csi_driver()).await?;
        let release = all.other(NAMESPACE);
        let team = node.namespace("team1", json!({})).await?;
        let dir = tempfile::tempdir().context("a directory")?;
        Ok(Self { node, helm, plugin, dir, all, release, team })
    }

    /// Installs the previous chart, and does what cert-manager does; the certificate.
    async fn old_release(&self) -> Result<String> {
        let (chart, values) = (old_chart(&self.helm, &self.dir)?, self.dir.path().join("old.yaml"));
        std::fs::write(&values, old_values().to_string())?;
        let (chart, values) = (chart.display().to_string(), values.display().to_string());
        let args = ["install", RELEASE, &chart, PLACE, "--create-namespace", "-f", &values, "--wait"];
        helm_run(&self.helm, self.node.cluster(), &args).await?;

        let names = ["", ".svc", ".svc.cluster.local"].map(|end| format!("{SERVICE}.{NAMESPACE}{end}"));
        let mut parameters = rcgen::CertificateParams::new(names)?;
        let now = SystemTime::now();
        parameters.not_before = (now - Duration::from_mins(5)).into();
        parameters.not_after = (now + Duration::from_hours(24 * 89)).into();
        let key = rcgen::KeyPair::generate()?;
        let certificate = parameters.self_signed(&key)?.pem();
        let data = json!({"tls.crt": certificate, "ca.crt": certificate, "tls.key": key.serialize_pem()});
        let secret = objects::named(kinds::SECRET, SERVING)
            .annotation("cert-manager.io/certificate-name", "serving-cert")
            .annotation("cert-manager.io/issuer-name", "selfsigned-issuer")
            .label("controller.cert-manager.io/fao", "true")
            .with(json!({"type": "kubernetes.io/tls", "stringData": data}));
        self.release.create(secret).await?;
        self.inject_authority(&certificate).await?;
        Ok(certificate)
    }

    /// What cert-manager does for `cert-manager.io/inject-ca-from`.
    async fn inject_authority(&self, certificate: &str) -> Result<()> {
        let bundle = STANDARD.encode(certificate);
        for (kind, name) in [(kinds::MUTATING_WEBHOOK, MUTATING), (kinds::VALIDATING_WEBHOOK, VALIDATING)] {
            let mut found = self.all.get(kind, name).await?;
            let from = found.annotation("cert-manager.io/inject-ca-from").unwrap_or_default();
            ensure!(from.starts_with("kagenti-system/serving-cert"), "{name}: {from:?}");
            for entry in found["webhooks"].as_array_mut().into_iter().flatten() {
                entry["clientConfig"]["caBundle"] = json!(bundle);
            }
            self.all.patch(kind, name, json!({"webhooks": found["webhooks"]})).await?;
        }
        Ok(())
    }

    async fn data(&self, name: &str) -> Result<config_hash::Data> {
        let map = self.release.get(kinds::CONFIG_MAP, name).await?;
        serde_json::from_value(map["data"].clone()).context("data of a ConfigMap")
    }

    /// Ten enrolled agents, in a namespace with everything that operator put there.
    async fn old_agents(&self) -> Result<()> {
        let issuer = "https://id.example.com/realms/kagenti";
        let identity = json!({
            "KEYCLOAK_URL": "http://keycloak-service.keycloak.svc:8080", "KEYCLOAK_REALM": "kagenti",
            "KEYCLOAK_NAMESPACE": "keycloak", "CLIENT_AUTH_TYPE": "client-secret",
            "SPIFFE_IDP_ALIAS": "spire-spiffe", "CREDENTIAL_WAIT_TIMEOUT": "120s",
            "ISSUER": issuer, "EXPECTED_AUDIENCE": issuer, "JWT_AUDIENCE": issuer,
        });
        let runtime = "mode: proxy-sidecar\n";
        self.team
            .create(
                objects::config_map(configmap::AUTHBRIDGE, identity.clone())
                    .label(label::MANAGED_BY, "kagenti-operator")
                    .label(label::DEFAULTS, "true"),
            )
            .await?;
        let sidecars = json!({configmap::CONFIG_KEY: runtime});
        self.team
            .create(
                objects::config_map(configmap::AUTHBRIDGE_RUNTIME, sidecars)
                    .label(label::MANAGED_BY, "kagenti-operator"),
            )
            .await?;
        let (gates, platform) =
            (self.data(configmap::FEATURE_GATES).await?, self.data(configmap::PLATFORM).await?);
        let overlay: config_hash::Data = serde_json::from_value(identity)?;
        for number in 0..AGENTS {
            // Its cache did not hold the sidecars' configuration in a real installation; it may have, elsewhere.
            let seen = if number % 2 == 0 { "" } else { runtime };
            let hash = config_hash::v1(&gates, &platform, &overlay, seen);
            self.old_agent(&agent(number), &hash).await?;
        }
        for number in 0..AGENTS {
            self.team.rolled_out(secs(90), kinds::DEPLOYMENT, &agent(number)).await?;
        }
        // Now only: nobody answers the old configuration, so no Pod could be made.
        self.all.set_labels(kinds::NAMESPACE, "team1", json!({label::NAMESPACE_ENABLED: "true"})).await?;
        Ok(())
    }

    async fn old_agent(&self, name: &str, hash: &str) -> Result<()> {
        let credentials = credentials::secret_name("team1", name);
        let workload = objects::deployment(name)
            .label(label::TYPE, "agent")
            .label(label::MANAGED_BY, "kagenti-operator")
            .label("protocol.kagenti.io/a2a", "")
            .template_label(label::TYPE, "agent")
            .template_annotation(annotation::CONFIG_HASH, hash)
            .template_annotation(annotation::MTLS_MODE, "permissive")
            .template_annotation(annotation::CREDENTIALS_SECRET, &credentials)
            .spec(json!({"progressDeadlineSeconds": 600}));
        let workload = self.team.create(workload).await?;
        let port = json!([{"name": "http", "port": 8000, "targetPort": 8000}]);
        self.team.create(objects::service(name, name, port)).await?;
        let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": workload.uid(),
            "controller": true, "blockOwnerDeletion": true});
        let secret = objects::named(kinds::SECRET, &credentials)
            .label(label::MANAGED_BY, "kagenti-operator")
            .with(json!({"metadata": {"ownerReferences": [owner]},
                "stringData": {"client-id.txt": format!("team1/{name}"), "client-secret.txt": "of-a-test"}}));
        self.team.create(secret).await?;

        let runtime = objects::agent_runtime(name, name)
            .with(json!({"metadata": {"finalizers": [finalizer::CLEANUP]}}));
        let runtime = self.team.create(runtime).await?;
        ensure!(runtime.text("/spec/mtlsMode") == "permissive", "a default of the old definition");
        let says = |kind: &str, reason: &str| {
            json!({"type": kind, "status": "True", "reason": reason, "message": "as before",
                "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let conditions = [
            says(condition::TARGET_RESOLVED, "TargetFound"),
            says(condition::CONFIG_RESOLVED, "ConfigResolved"),
            // Another reason than ours, so that the wait below is for our own word.
            says(condition::READY, "AsBefore"),
        ];
        let status = json!({"status": {"conditions": conditions, "configuredPods": 1}});
        self.team.patch_status(kinds::AGENT_RUNTIME, name, status).await.map(drop)
    }

    async fn kept(&self) -> Result<Kept> {
        let mut configuration = Vec::new();
        for name in [configmap::PLATFORM, configmap::FEATURE_GATES] {
            configuration.push(self.release.get(kinds::CONFIG_MAP, name).await?["data"].clone());
        }
        let (mut templates, mut found) = (Vec::new(), Vec::new());
        for number in 0..AGENTS {
            let name = agent(number);
            templates.push(self.team.get(kinds::DEPLOYMENT, &name).await?.template().clone());
            found.extend(self.team.list(kinds::POD, &format!("app={name}")).await?);
        }
        Ok(Kept { configuration, templates, pods: lives(&found) })
    }

    async fn assert_kept(&self, before: &Kept) -> Result<()> {
        let now = self.kept().await?;
        assert_eq!(now.configuration, before.configuration);
        for (number, (now, before)) in now.templates.iter().zip(&before.templates).enumerate() {
            assert_eq!(now, before, "the template of {}", agent(number));
        }
        assert_eq!(now.pods, before.pods);
        for number in 0..AGENTS {
            let sets = self.team.replica_sets(&agent(number)).await?;
            assert_eq!(sets.len(), 1, "{} was rolled", agent(number));
        }
        Ok(())
    }

    /// Helm hands the old values to the new chart when none are given; it says what to do, and changes nothing.
    async fn old_values_are_refused(&self) -> Result<()> {
        let chart = self.helm.chart().display().to_string();
        let refused = self.helm.run(["upgrade", RELEASE, &chart, PLACE]).await;
        let said = format!("{:#}", refused.err().context("values of the previous chart were taken")?);
        for words in ["client-registration-ctl.keycloak.publicUrl", "kubectl kagenti values convert"] {
            ensure!(said.contains(words), "{words}: {said}");
        }
        for fine in ["injectTools", "logLevel"] {
            ensure!(!said.contains(fine), "{said}");
        }
        self.release.get(kinds::DEPLOYMENT, "kagenti-controller-manager").await.map(drop)
    }

    /// `helm get values | kubectl kagenti values convert -f - > new.yaml; helm upgrade -f new.yaml`, without waiting: the old
    /// Lease is still renewed.
    async fn upgrade(&self) -> Result<()> {
        let (old, new) = (self.dir.path().join("given.yaml"), self.dir.path().join("new.yaml"));
        let given = self.helm.run(["get", "values", RELEASE, PLACE, "--output=yaml"]).await?;
        ensure!(given.contains("publicUrl"), "{given}");
        std::fs::write(&old, given)?;
        let convert = tokio::process::Command::new(&self.plugin)
            .args(["values", "convert", "-f"])
            .arg(&old)
            .output()
            .await
            .context("starting the plugin")?;
        let said = String::from_utf8_lossy(&convert.stderr).into_owned();
        ensure!(convert.status.success(), "{said}");
        std::fs::write(&new, convert.stdout)?;
        let (chart, values) = (self.helm.chart().display().to_string(), new.display().to_string());
        let args = ["upgrade", RELEASE, &chart, PLACE, "-f", &values, "--timeout=3m"];
        helm_run(&self.helm, self.node.cluster(), &args).await.map(drop)
    }

    /// While the old Lease is renewed every component says so, and writes nothing; longer than the Lease lasts.
    async fn guarded(&self, mark: Mark) -> Result<()> {
        let components = ["runtime-ctl", "card-ctl", "client-registration-ctl", "authbridge-webhook"];
        for component in components {
            until_readyz(&self.release, component, secs(90), 503, &[LEASE]).await?;
        }
        let runtime =
            self.team.stays(secs(u64::from(LEASE_SECONDS) + 1), kinds::AGENT_RUNTIME, &agent(0)).await?;
        ensure!(runtime.condition(condition::READY).reason == "AsBefore", "{}", runtime.readable());
        for component in components {
            until_readyz(&self.release, component, secs(5), 503, &[LEASE]).await?;
        }
        let writes = self.node.cluster().audit()?.since(mark, is_guarded_write)?;
        ensure!(writes.is_empty(), "written beside the old operator: {writes:#?}");
        Ok(())
    }

    async fn old_objects_are_gone(&self) -> Result<()> {
        let gone: [(&Ns, Kind, &str); 4] = [
            (&self.release, kinds::DEPLOYMENT, "kagenti-controller-manager"),
            (&self.all, kinds::CLUSTER_ROLE, "kagenti-manager-role"),
            (&self.all, kinds::CLUSTER_ROLE_BINDING, "kagenti-manager-rolebinding"),
            (&self.release, kinds::CERTIFICATE, "serving-cert"),
        ];
        for (ns, kind, name) in gone {
            ns.gone(secs(30), kind, name).await?;
        }
        let crd = self.all.get(kinds::CRD, "agentruntimes.agent.kagenti.dev").await?;
        ensure!(crd.to_string().contains("inboundInterception"), "the definitions are ours now");
        ensure!(crd.annotation("meta.helm.sh/release-name").is_none(), "{}", crd.readable());
        Ok(())
    }

    /// The API server believes the webhook: a Pod on trial gets its sidecar.
    async fn admission_works(&self) -> Result<()> {
        let path = format!("{}?dryRun=All", kinds::POD.path(Some("team1")));
        let pod = objects::pod("trial").label(label::TYPE, "agent").build();
        wait_for(secs(60), "a Pod to be admitted with its sidecar", async || {
            let reply = api::call(self.team.client(), "POST", &path, "application/json", Some(&pod)).await?;
            let admitted = reply.ok()?;
            ensure!(admitted.container("authbridge-proxy").is_some(), "{}", admitted.readable());
            Ok(Some(()))
        })
        .await
    }

    /// The Certificate goes with a later upgrade: the webhook serves what the Secret has, and renews it itself.
    async fn own_certificates(&self, old: &str) -> Result<()> {
        let chart = self.helm.chart().display().to_string();
        let set =
            "--set=authbridge-webhook.tls.mode=self-signed,authbridge-webhook.tls.selfSigned.caOverlap=3s";
        let args = ["upgrade", RELEASE, &chart, PLACE, "--reuse-values", set, "--wait", "--timeout=3m"];
        helm_run(&self.helm, self.node.cluster(), &args).await?;
        let certificates = self.release.list(kinds::CERTIFICATE, "").await?;
        ensure!(certificates.is_empty(), "{certificates:?}");
        let renewed = |secret: &Value| secret.text("/data/tls.crt") != STANDARD.encode(old);
        self.release.until(secs(60), kinds::SECRET, SERVING, "a leaf of our own authority", renewed).await?;
        self.admission_works().await?;
        until_ready(&self.release, secs(30)).await
    }
}

/// A write that the guard forbids: everything of a component but its Lease, Events, and questions about callers.
fn is_guarded_write(request: &ApiRequest) -> bool {
    let noise = ["events", "leases", "tokenreviews", "subjectaccessreviews"];
    request.is_write()
        && request.user.starts_with("system:serviceaccount:kagenti-system:")
        // The Job that applies the definitions comes before any component.
        && !request.short_user().contains("crds")
        && !noise.contains(&request.resource.as_str())
}
