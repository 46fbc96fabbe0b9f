//! `cargo demo --full`, second half: what the quick start's agent can do with what it was given.
//!
//! Everything is looked at from outside, past the components: in Keycloak's realm, at its token endpoint, in MLflow.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use api_types::credentials;
use api_types::registration::{CLIENT_ID_KEY, CLIENT_SECRET_KEY};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use kube::api::{Api, DynamicObject, ListParams};
use kube::{Client, ResourceExt};
use local_cluster::services::runs::{Experiments, log_run};
use local_cluster::services::{Account, Realm, Token};
use local_cluster::{Cluster, wait_for};
use serde_json::Value;

use super::checks::Check;
use super::platform::Platform;
use super::screen::Screen;
use super::story::{LIMIT, NAMESPACE, SELECTOR, WORKLOAD};

/// The agent whose secret somebody tries to use.
const OTHER: &str = "news-agent";
const OTHER_YAML: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: news-agent, namespace: default, labels: {app.kubernetes.io/name: news-agent}}
spec:
  selector: {matchLabels: {app.kubernetes.io/name: news-agent}}
  template:
    metadata: {labels: {app.kubernetes.io/name: news-agent}}
    spec: {containers: [{name: agent, image: "ghcr.io/kagenti/agent-examples/weather_service:v0.0.1-alpha.3"}]}
---
apiVersion: agent.kagenti.dev/v1alpha1
kind: AgentRuntime
metadata: {name: news-agent, namespace: default}
spec: {type: agent, targetRef: {apiVersion: apps/v1, kind: Deployment, name: news-agent}}
"#;

/// The agent as its Pod sees it.
struct Given {
    account: Account,
    secret_name: String,
    /// Variables of MLflow in the Pod's first container.
    tracking: BTreeMap<String, String>,
    /// Issuer and audience that the sidecar demands of a token.
    demanded: (String, String),
}

/// The view of the chain.
pub(crate) struct Chain<'a> {
    cluster: &'a Cluster,
    screen: &'a Screen,
    platform: &'a Platform,
    client: Client,
}

/// The checks made so far, shown as they are made.
struct Proof<'a> {
    screen: &'a Screen,
    checks: Vec<Check>,
}

impl Proof<'_> {
    /// Shows a statement as soon as it is known whether it holds.
    async fn check<T>(&mut self, text: &str, work: impl Future<Output = Result<T>>) -> Option<T> {
        let task = self.screen.task(text);
        let outcome = work.await;
        task.cleared();
        self.screen.check(outcome.is_ok(), text);
        if let Err(error) = &outcome {
            self.screen.reason(error);
        }
        self.checks.push(Check { text: text.to_owned(), holds: outcome.is_ok() });
        outcome.ok()
    }
}

impl<'a> Chain<'a> {
    /// On a cluster where the quick start has ended well.
    pub(crate) async fn new(
        cluster: &'a Cluster,
        screen: &'a Screen,
        platform: &'a Platform,
    ) -> Result<Self> {
        Ok(Self { cluster, screen, platform, client: cluster.client().await? })
    }

    /// Shows every check as it is made; the first that fails is the last one, with its reason.
    pub(crate) async fn follow(self, applied: &mut Vec<DynamicObject>) -> Result<Vec<Check>> {
        self.screen.heading("What the agent was given");
        let given = self.given().await.context("looking at what the agent was given")?;
        self.show(&given);
        self.screen.heading("The chain, from outside");
        // Whatever comes after a failure could only repeat it.
        let mut proof = Proof { screen: self.screen, checks: Vec::new() };
        let _ = self.prove(&given, applied, &mut proof).await;
        Ok(proof.checks)
    }

    async fn prove(
        &self,
        given: &Given,
        applied: &mut Vec<DynamicObject>,
        proof: &mut Proof<'_>,
    ) -> Option<()> {
        let realm = self.platform.realm();
        let id = given.account.id.as_str();
        proof
            .check(
                &format!("realm {} has client {id}, and it is confidential", realm.name()),
                confidential(realm, id),
            )
            .await?;
        let scope = format!("agent-{NAMESPACE}-{WORKLOAD}-aud");
        proof
            .check(
                &format!("audience scope {scope} is one of its default scopes"),
                has_scope(realm, id, &scope),
            )
            .await?;
        let token = proof
            .check("the credentials log in at the realm's token endpoint", realm.token(&given.account))
            .await?;
        let (issuer, audience) = &given.demanded;
        proof.check(
            &format!(
                "the token is signed by the realm, not expired, and for {audience}, as the sidecar demands"
            ),
            accepted(realm, &token, issuer, audience),
        )
        .await?;

        let other = self.second_agent(applied);
        let other =
            proof.check(&format!("a second agent, {OTHER}, gets credentials of its own"), other).await?;
        let stolen = Account { id: id.to_owned(), secret: other.secret.clone() };
        proof
            .check(
                &format!("with the secret of {OTHER} nobody logs in as {WORKLOAD}"),
                refused(realm, &stolen),
            )
            .await?;
        proof
            .check(
                &format!("a token of {OTHER} is none for {WORKLOAD}"),
                not_for(realm, &other, issuer, audience),
            )
            .await?;

        let tracking = &given.tracking;
        let name = format!("{NAMESPACE}/{WORKLOAD}");
        let experiments = Experiments::at(self.platform.mlflow().url());
        proof
            .check(&format!("MLflow has experiment {name}, under the injected id"), async {
                let found = experiments.by_name(&name).await?.context("there is no such experiment")?;
                let found = found.get("experiment_id").and_then(Value::as_str);
                let injected = tracking.get("MLFLOW_EXPERIMENT_ID").map(String::as_str);
                ensure!(
                    found.is_some() && found == injected,
                    "its id is {found:?}, the Pod has {injected:?}"
                );
                Ok(())
            })
            .await?;
        let env: Vec<(String, String)> =
            tracking.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let python = self.platform.mlflow().python();
        let run = async {
            let (experiment, run) = log_run(python, &env).await?;
            let runs = experiments.runs(&experiment).await?;
            let logged =
                |found: &Value| found.pointer("/info/run_id").and_then(Value::as_str) == Some(run.as_str());
            ensure!(runs.iter().any(logged), "experiment {experiment} has no run {run}");
            ensure!(
                tracking.get("MLFLOW_EXPERIMENT_ID") == Some(&experiment),
                "it is in experiment {experiment}"
            );
            Ok(())
        };
        proof.check("the mlflow client logs a run there, with nothing but these variables", run).await
    }

    fn show(&self, given: &Given) {
        let realm = self.platform.realm().name();
        let mut rows = vec![
            ["Keycloak client".to_owned(), format!("{} in realm {realm}", given.account.id)],
            ["Secret".to_owned(), format!("{}, mounted by the Pod", given.secret_name)],
        ];
        rows.extend(given.tracking.iter().map(|(name, value)| [name.clone(), value.clone()]));
        rows.push([
            "tokens for it".to_owned(),
            format!("issuer {}, audience {}", given.demanded.0, given.demanded.1),
        ]);
        self.screen.table(["what", "value"], &rows);
    }

    /// What the newest Pod of the agent has.
    async fn given(&self) -> Result<Given> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let pods =
            pods.list(&ListParams::default().labels(SELECTOR)).await.context("listing its Pods")?.items;
        let pod =
            pods.into_iter().max_by_key(ResourceExt::creation_timestamp).context("the agent has no Pod")?;
        let spec = pod.spec.as_ref().context("the Pod is empty")?;
        let secret_name = credentials::secret_name(NAMESPACE, WORKLOAD);
        let mounts = spec.volumes.iter().flatten().filter_map(|volume| volume.secret.as_ref());
        ensure!(
            mounts.filter_map(|secret| secret.secret_name.as_ref()).any(|name| *name == secret_name),
            "Pod {} does not mount Secret {secret_name}",
            pod.name_any()
        );
        let account = self.account(WORKLOAD).await?.context("there are no credentials")?;
        let tracking = spec.containers.first().map(tracking).unwrap_or_default();
        let demanded = self.demanded(&account).await.context("what the sidecar demands of a token")?;
        Ok(Given { account, secret_name, tracking, demanded })
    }

    /// The credentials of a workload; none before they are delivered.
    async fn account(&self, workload: &str) -> Result<Option<Account>> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        let name = credentials::secret_name(NAMESPACE, workload);
        let Some(secret) = secrets.get_opt(&name).await.with_context(|| format!("reading Secret {name}"))?
        else {
            return Ok(None);
        };
        let read = |key: &str| -> Result<String> {
            let value = secret.data.as_ref().and_then(|data| data.get(key));
            let value = value.with_context(|| format!("Secret {name} has no key {key}"))?;
            String::from_utf8(value.0.clone()).with_context(|| format!("key {key} of Secret {name}"))
        };
        Ok(Some(Account { id: read(CLIENT_ID_KEY)?, secret: read(CLIENT_SECRET_KEY)? }))
    }

    async fn demanded(&self, account: &Account) -> Result<(String, String)> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), NAMESPACE);
        let name = format!("authbridge-config-{WORKLOAD}");
        let map = maps.get(&name).await.with_context(|| format!("reading ConfigMap {name}"))?;
        let text = map.data.as_ref().and_then(|data| data.get("config.yaml"));
        let text = text.with_context(|| format!("ConfigMap {name} has no config.yaml"))?;
        let config: Value = serde_saphyr::from_str(text).context("its config.yaml")?;
        demanded(&config, &account.id)
    }

    async fn second_agent(&self, applied: &mut Vec<DynamicObject>) -> Result<Account> {
        applied.extend(self.cluster.apply_yaml(OTHER_YAML).await?);
        wait_for(LIMIT, "its credentials", async || self.account(OTHER).await).await
    }
}

/// Issuer and audience in the sidecar's configuration. Without an audience of its own it is the client id, which the
/// sidecar reads from a file.
fn demanded(config: &Value, client_id: &str) -> Result<(String, String)> {
    let plugins = config.pointer("/pipeline/inbound/plugins").and_then(Value::as_array);
    let named = |plugin: &&Value| plugin.get("name").is_some_and(|name| name == "jwt-validation");
    let plugin = plugins.into_iter().flatten().find(named).context("its pipeline has no jwt-validation")?;
    let read = |key: &str| plugin.get("config")?.get(key)?.as_str().map(str::to_owned);
    let issuer = read("issuer").context("its jwt-validation names no issuer")?;
    Ok((issuer, read("audience").unwrap_or_else(|| client_id.to_owned())))
}

/// The variables of MLflow that a container gets as literals.
fn tracking(container: &Container) -> BTreeMap<String, String> {
    let env = container.env.iter().flatten().filter(|variable| variable.name.starts_with("MLFLOW_"));
    env.filter_map(|variable| Some((variable.name.clone(), variable.value.clone()?))).collect()
}

async fn confidential(realm: &Realm, id: &str) -> Result<()> {
    let client = realm.existing(id).await?;
    let public = client.get("publicClient").and_then(Value::as_bool);
    ensure!(public == Some(false), "publicClient is {public:?}");
    Ok(())
}

async fn has_scope(realm: &Realm, id: &str, scope: &str) -> Result<()> {
    let client = realm.existing(id).await?;
    let uuid = client.get("id").and_then(Value::as_str).context("the client has no id")?;
    let scopes = realm.read(&format!("/clients/{uuid}/default-client-scopes")).await?;
    let names: Vec<&str> =
        scopes.as_array().into_iter().flatten().filter_map(|scope| scope.get("name")?.as_str()).collect();
    ensure!(names.contains(&scope), "its default scopes are {}", names.join(", "));
    Ok(())
}

async fn accepted(realm: &Realm, token: &Token, issuer: &str, audience: &str) -> Result<()> {
    token.verify(&realm.keys().await?, issuer, audience)
}

async fn refused(realm: &Realm, account: &Account) -> Result<()> {
    let reply = realm.log_in(account).await?;
    // The body of a success is a token, and not for the screen.
    ensure!(reply.status == 401, "the token endpoint answers {}", reply.status);
    Ok(())
}

async fn not_for(realm: &Realm, other: &Account, issuer: &str, audience: &str) -> Result<()> {
    let token = realm.token(other).await?;
    accepted(realm, &token, issuer, &other.id).await.context("it is not even one for its own agent")?;
    ensure!(
        accepted(realm, &token, issuer, audience).await.is_err(),
        "it is accepted: {:?}",
        token.audiences()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use anyhow::bail;
    use serde_json::json;

    use super::*;

    fn pipeline(plugin: &Value) -> Value {
        json!({"pipeline": {"inbound": {"plugins": [{"name": "other"}, plugin]}}})
    }

    #[test]
    fn what_the_sidecar_demands() {
        let by_file =
            pipeline(&json!({"name": "jwt-validation", "config": {"issuer": "i", "audience_file": "/f"}}));
        assert_eq!(demanded(&by_file, "ns/w").expect("both"), ("i".to_owned(), "ns/w".to_owned()));
        let own = pipeline(&json!({"name": "jwt-validation", "config": {"issuer": "i", "audience": "a"}}));
        assert_eq!(demanded(&own, "ns/w").expect("both"), ("i".to_owned(), "a".to_owned()));
        let error = demanded(&pipeline(&json!({"name": "x"})), "ns/w").expect_err("nothing is checked");
        assert!(error.to_string().contains("no jwt-validation"), "{error}");
        let silent = pipeline(&json!({"name": "jwt-validation", "config": {}}));
        assert!(demanded(&silent, "ns/w").is_err(), "any issuer would do");
    }

    #[test]
    fn only_literals_of_mlflow_are_handed_on() {
        let container = serde_json::from_value(json!({"name": "agent", "env": [
            {"name": "MLFLOW_EXPERIMENT_ID", "value": "1"},
            {"name": "MLFLOW_TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "PORT", "value": "8000"},
        ]}));
        let env = tracking(&container.expect("a container"));
        assert_eq!(
            env.into_iter().collect::<Vec<_>>(),
            [("MLFLOW_EXPERIMENT_ID".to_owned(), "1".to_owned())]
        );
    }

    #[tokio::test]
    async fn a_failure_is_a_check_that_does_not_hold() {
        let screen = Screen::new();
        let mut proof = Proof { screen: &screen, checks: Vec::new() };
        assert_eq!(proof.check("one", async { Ok(1) }).await, Some(1));
        assert_eq!(proof.check("two", async { bail!("it is not") }).await, None::<()>);
        let holds: Vec<bool> = proof.checks.iter().map(|check| check.holds).collect();
        assert_eq!(holds, [true, false]);
    }
}
