//! A context on top of a scripted API server and a small Keycloak.

use std::{collections::BTreeMap, ops::Deref, time::Duration};

use api_types::{enrolment::TargetKind, names::label};
use clap::Parser;
use client_registration_ctl::{
    context::{Context, Key, Prepared},
    error::Error,
    identity::PlatformDomain,
    index::Runtime,
    keycloak::AdminCredentials,
    registration,
    secret::SecretMeta,
    settings::{AdminAuth, Settings},
    sources::Source,
    workload::{Unit, Workload, WorkloadView},
};
use controller_kit::{controller::Controller, surroundings::Input, workload::resource};
use k8s_openapi::ByteString;
use scripted_api::{Call, ScriptedApi, merge};
use serde_json::{Value, json};

use crate::keycloak::FakeKeycloak;

pub(crate) const NS: &str = "team1";
pub(crate) const SECRETS: &str = "/api/v1/namespaces/team1/secrets";
pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/team1/deployments";
pub(crate) const RUNTIMES: &str = "/apis/agent.kagenti.dev/v1alpha1/namespaces/team1/agentruntimes";

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: Settings,
}

/// The stage: objects are put on it, passes run, calls are looked at.
pub(crate) struct Stage {
    pub(crate) ctx: Context,
    pub(crate) keycloak: FakeKeycloak,
    api: ScriptedApi,
    url: String,
}

impl Deref for Stage {
    type Target = ScriptedApi;

    fn deref(&self) -> &ScriptedApi {
        &self.api
    }
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// With these flags, a namespace that names the platform's Keycloak, and no SPIRE.
    pub(crate) async fn with(flags: &[&str]) -> Self {
        let keycloak = FakeKeycloak::start().await;
        Self::on(keycloak, ScriptedApi::new(), flags)
    }

    fn on(keycloak: FakeKeycloak, api: ScriptedApi, flags: &[&str]) -> Self {
        let url = keycloak.url.clone();
        let own = [
            "x".to_owned(),
            format!("--keycloak-url={url}"),
            "--cluster-id=c1".to_owned(),
            "--keycloak-qps=0".to_owned(),
            // The webhook is not part of these tests.
            "--template-annotation=always".to_owned(),
        ];
        let given = |name: &str| flags.iter().any(|flag| flag.starts_with(name));
        let own = own.into_iter().filter(|flag| !given(flag.split('=').next().unwrap()));
        let settings = Flags::parse_from(own.chain(flags.iter().map(|&flag| flag.to_owned()))).settings;
        let (ctx, closer) =
            Context::new(api.handles("client-registration-ctl"), Prepared::new(settings).unwrap());
        tokio::spawn(closer.run());
        let stage = Self { ctx, keycloak, api, url };
        stage.ctx.around.assume_read();
        stage.ctx.set_domain(PlatformDomain::Absent);
        // Given by a flag it is told from the beginning; a test of the first look gives another Keycloak.
        if !given("--keycloak-url") || flags.contains(&"--keycloak-url=") {
            stage.ctx.note_public_url_look();
        }
        stage.ctx.around.put_namespace(NS, Some(&map(&[(label::NAMESPACE_ENABLED, "true")])), false);
        stage.config(&[]);
        stage.admin("1", "hunter2");
        stage
    }

    /// The process after a restart, with what the API server and Keycloak have.
    pub(crate) fn restarted(&self, flags: &[&str]) -> Self {
        let again = Self::on(self.keycloak.clone(), ScriptedApi::new(), flags);
        for (path, object) in self.objects("/") {
            again.api.put(&path, object);
            if path.starts_with(SECRETS) {
                again.see_secret(&path);
            } else if path.starts_with(DEPLOYMENTS) {
                again.see_deployment(&path);
            } else if path.starts_with(RUNTIMES) {
                again.see_runtime(&path);
            }
        }
        again
    }

    pub(crate) fn admin(&self, version: &str, password: &str) {
        let data = BTreeMap::from([
            ("username".to_owned(), ByteString(b"admin".to_vec())),
            ("password".to_owned(), ByteString(password.as_bytes().to_vec())),
        ]);
        self.ctx.keycloak.admin().set(AdminCredentials::read(AdminAuth::Password, &data, version.to_owned()));
    }

    /// `authbridge-config` of the namespace: the platform's Keycloak, and these keys (an empty value takes one out).
    pub(crate) fn config(&self, pairs: &[(&str, &str)]) {
        let mut data = map(&[("KEYCLOAK_URL", &self.url), ("KEYCLOAK_REALM", "kagenti")]);
        for (key, value) in pairs {
            data.insert((*key).to_owned(), (*value).to_owned());
        }
        data.retain(|_, value| !value.is_empty());
        self.ctx.around.put_config(Input::Authbridge, NS, Some(data));
    }

    pub(crate) fn no_config(&self) {
        self.ctx.around.put_config(Input::Authbridge, NS, None);
    }

    pub(crate) fn gates(&self, text: &str) {
        let data = map(&[("feature-gates.yaml", text)]);
        self.ctx.around.put_config(Input::Gates, "kagenti-system", Some(data));
    }

    /// A Deployment of an agent, in server and index.
    pub(crate) fn agent(&self, name: &str) {
        self.deployment(name, json!({}));
    }

    pub(crate) fn deployment(&self, name: &str, change: Value) {
        let path = format!("{DEPLOYMENTS}/{name}");
        let mut object = if self.has(&path) {
            self.object(&path)
        } else {
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"namespace": NS, "name": name, "uid": format!("uid-of-{name}"), "generation": 1,
                    "creationTimestamp": "1970-01-01T00:00:00Z"},
                "spec": {"replicas": 1, "template": {"metadata": {"labels": {"kagenti.io/type": "agent"}}, "spec": {}}},
                "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1},
            })
        };
        merge(&mut object, &change);
        self.put(&path, object);
        self.see_deployment(&path);
    }

    fn see_deployment(&self, path: &str) {
        let view: WorkloadView = serde_json::from_value(self.object(path)).unwrap();
        let kind = TargetKind::Deployment;
        let workload = Workload::from_view(kind, &resource(kind, "v1"), view).unwrap();
        let _ = self.ctx.index.workloads.upsert(workload);
    }

    /// The Deployment is gone, from server and index.
    pub(crate) fn remove_deployment(&self, name: &str) {
        self.remove_unseen(&format!("{DEPLOYMENTS}/{name}"));
        for workload in self.ctx.index.workloads_of(&Self::unit(name)) {
            self.ctx.index.workloads.remove(&workload.key);
        }
    }

    /// An AgentRuntime for a Deployment.
    pub(crate) fn runtime(&self, name: &str, change: Value) -> String {
        let mut object = json!({
            "apiVersion": "agent.kagenti.dev/v1alpha1", "kind": "AgentRuntime",
            "metadata": {"namespace": NS, "name": name, "generation": 1},
            "spec": {"type": "agent", "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}},
        });
        merge(&mut object, &change);
        let path = format!("{RUNTIMES}/{name}");
        self.put(&path, object);
        self.see_runtime(&path);
        path
    }

    fn see_runtime(&self, path: &str) {
        let runtime = Runtime::of(serde_json::from_value(self.object(path)).unwrap());
        let _ = self.ctx.index.runtimes.upsert(runtime);
    }

    pub(crate) fn unit(name: &str) -> Unit {
        Unit::new(NS, name)
    }

    pub(crate) fn secret_path(name: &str) -> String {
        format!("{SECRETS}/{}", Self::unit(name).secret_name())
    }

    pub(crate) fn see_secret(&self, path: &str) {
        let meta = serde_json::from_value(self.object(path)["metadata"].clone()).unwrap();
        let _ = self.ctx.index.secrets.upsert(SecretMeta::of(meta).unwrap());
    }

    /// Somebody changes a Secret, and the watch tells.
    pub(crate) fn change_secret(&self, name: &str, change: Value) {
        let path = Self::secret_path(name);
        self.change_unseen(&path, change);
        self.see_secret(&path);
    }

    /// The garbage collector has begun to delete the Secret.
    pub(crate) fn delete_secret(&self, name: &str) {
        self.change_secret(name, json!({"metadata": {"deletionTimestamp": "1970-01-01T00:00:00Z"}}));
    }

    /// A value of the Secret.
    pub(crate) fn credential(&self, name: &str, key: &str) -> String {
        let secret: k8s_openapi::api::core::v1::Secret =
            serde_json::from_value(self.object(&Self::secret_path(name))).unwrap();
        String::from_utf8(secret.data.unwrap()[key].0.clone()).unwrap()
    }

    pub(crate) fn secret_annotation(&self, name: &str, key: &str) -> Option<String> {
        let secret = self.object(&Self::secret_path(name));
        secret["metadata"]["annotations"][key].as_str().map(str::to_owned)
    }

    pub(crate) fn template_annotation(&self, name: &str, key: &str) -> Option<String> {
        let object = self.object(&format!("{DEPLOYMENTS}/{name}"));
        object["spec"]["template"]["metadata"]["annotations"][key].as_str().map(str::to_owned)
    }

    /// One pass over the workloads of a name.
    pub(crate) async fn try_pass(&self, name: &str) -> Result<Option<Duration>, Error> {
        registration::pass(&self.ctx, &Self::unit(name)).await
    }

    pub(crate) async fn pass(&self, name: &str) -> Option<Duration> {
        self.try_pass(name).await.expect("a pass")
    }

    /// The pass that finishes the deletion of a Secret.
    pub(crate) async fn finish(&self, name: &str) -> Option<Duration> {
        let key = Key::Secret(NS.to_owned(), Self::unit(name).secret_name());
        self.ctx.pass(&key).await.expect("a pass")
    }

    /// One pass; gives the calls to Kubernetes.
    pub(crate) async fn calls(&self, name: &str) -> Vec<Call> {
        self.during(self.pass(name)).await.0
    }

    /// The next pass compares with Keycloak.
    pub(crate) fn full_check_is_due(&self, name: &str) {
        let unit = Self::unit(name);
        if let Some(mut checked) = self.ctx.checked.get(&unit) {
            checked.due = tokio::time::Instant::now();
            self.ctx.checked.insert(unit, checked);
        }
    }

    /// Status and reason of a condition.
    pub(crate) fn condition_of(&self, runtime: &str, type_: &str) -> Option<(String, String)> {
        self.verdict(runtime, type_)
    }

    /// A watch that has not delivered.
    pub(crate) fn not_synced(&self, source: Source) {
        self.ctx.sources.register(source, None);
    }
}

pub(crate) fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
