//! One namespace of a test, or the objects that live in none.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use api_types::names::condition;
use kube::Client;
use serde_json::Value;

use crate::api::{self, MERGE_PATCH, Reply};
use crate::json::Json;
use crate::kinds::{self, Kind};
use crate::wait::{PAUSE, poll};

/// A namespace with a client. Clones are cheap.
#[derive(Clone)]
pub struct Ns {
    client: Client,
    name: Option<String>,
}

impl std::fmt::Debug for Ns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ns").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Ns {
    /// The namespace of this name, which must exist.
    pub fn new(client: Client, name: &str) -> Self {
        Self { client, name: Some(name.to_owned()) }
    }

    /// Objects outside namespaces; [`Ns::list`] lists all namespaces.
    pub fn cluster(client: Client) -> Self {
        Self { client, name: None }
    }

    /// Name of the namespace, empty outside.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// Another namespace with the same client.
    #[must_use]
    pub fn other(&self, name: &str) -> Self {
        Self::new(self.client.clone(), name)
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn path(&self, kind: Kind, name: &str) -> String {
        format!("{}/{name}", kind.path(self.name.as_deref()))
    }

    /// Creates an object and returns the answer, whatever it is.
    pub async fn post(&self, object: impl Into<Value>) -> Result<Reply> {
        let object = object.into();
        let path = Kind::of(&object)?.path(self.name.as_deref());
        api::call(&self.client, "POST", &path, "application/json", Some(&object)).await
    }

    /// Creates an object.
    pub async fn create(&self, object: impl Into<Value>) -> Result<Value> {
        let object = object.into();
        let what = format!("creating {} {} in {:?}", object.text("/kind"), object.name(), self.name());
        self.post(object).await?.ok().context(what)
    }

    /// Creates an object that must be refused; the answer.
    pub async fn refused(&self, object: impl Into<Value>) -> Result<Reply> {
        let object = object.into();
        let reply = self.post(object.clone()).await?;
        ensure!(reply.status >= 400, "{} was accepted", object.readable());
        Ok(reply)
    }

    /// Reads an object; none when it is not there.
    pub async fn find(&self, kind: Kind, name: &str) -> Result<Option<Value>> {
        let reply = api::call(&self.client, "GET", &self.path(kind, name), "application/json", None).await?;
        if reply.status == 404 { Ok(None) } else { reply.ok().map(Some) }
    }

    /// Reads an object that must be there.
    pub async fn get(&self, kind: Kind, name: &str) -> Result<Value> {
        let found = self.find(kind, name).await?;
        found.with_context(|| format!("there is no {} {name} in {:?}", kind.kind, self.name()))
    }

    /// Objects of a kind with a label selector (`""`: all).
    pub async fn list(&self, kind: Kind, selector: &str) -> Result<Vec<Value>> {
        let selector = selector.replace(',', "%2C").replace('=', "%3D").replace(' ', "%20");
        let path = format!("{}?labelSelector={selector}", kind.path(self.name.as_deref()));
        let body = api::call(&self.client, "GET", &path, "application/json", None).await?.ok()?;
        Ok(body.items("/items").to_vec())
    }

    /// Sends a JSON merge patch and returns the answer, whatever it is.
    pub async fn try_patch(&self, kind: Kind, name: &str, patch: Value) -> Result<Reply> {
        api::call(&self.client, "PATCH", &self.path(kind, name), MERGE_PATCH, Some(&patch)).await
    }

    /// Sends a JSON merge patch.
    pub async fn patch(&self, kind: Kind, name: &str, patch: Value) -> Result<Value> {
        self.try_patch(kind, name, patch)
            .await?
            .ok()
            .with_context(|| format!("patching {} {name}", kind.kind))
    }

    /// Sends a JSON merge patch for the status subresource.
    pub async fn patch_status(&self, kind: Kind, name: &str, patch: Value) -> Result<Value> {
        let url = format!("{}/status", self.path(kind, name));
        api::call(&self.client, "PATCH", &url, MERGE_PATCH, Some(&patch)).await?.ok()
    }

    /// Adds or changes annotations (null removes one).
    pub async fn annotate(&self, kind: Kind, name: &str, annotations: Value) -> Result<Value> {
        self.patch(kind, name, serde_json::json!({"metadata": {"annotations": annotations}})).await
    }

    /// Adds or changes labels (null removes one).
    pub async fn set_labels(&self, kind: Kind, name: &str, labels: Value) -> Result<Value> {
        self.patch(kind, name, serde_json::json!({"metadata": {"labels": labels}})).await
    }

    /// Changes `spec`.
    pub async fn set_spec(&self, kind: Kind, name: &str, spec: Value) -> Result<Value> {
        self.patch(kind, name, serde_json::json!({"spec": spec})).await
    }

    /// Applies an object server-side as field manager `test`, creating it when it is missing.
    pub async fn apply(&self, object: impl Into<Value>) -> Result<Value> {
        let object = object.into();
        let path = format!("{}?fieldManager=test&force=true", self.path(Kind::of(&object)?, object.name()));
        let reply = api::call(&self.client, "PATCH", &path, api::APPLY_PATCH, Some(&object)).await?;
        reply.ok().with_context(|| format!("applying {} {}", object.text("/kind"), object.name()))
    }

    /// Deletes an object (background propagation). An object that is gone already is an error.
    pub async fn delete(&self, kind: Kind, name: &str) -> Result<()> {
        let options = serde_json::json!({"propagationPolicy": "Background"});
        let reply =
            api::call(&self.client, "DELETE", &self.path(kind, name), "application/json", Some(&options))
                .await?;
        reply.ok().map(drop).with_context(|| format!("deleting {} {name}", kind.kind))
    }

    /// Waits until an object is gone.
    pub async fn gone(&self, limit: Duration, kind: Kind, name: &str) -> Result<()> {
        let mut last = None;
        let outcome = poll(limit, async || {
            last = self.find(kind, name).await?;
            Ok(last.is_none().then_some(()))
        });
        let outcome = outcome.await;
        outcome.with_context(|| {
            let last = last.as_ref().map(Json::readable).unwrap_or_default();
            format!(
                "waited {limit:?} for {} {name} in {:?} to go; last seen:\n{last}",
                kind.kind,
                self.name()
            )
        })
    }

    /// Waits until an object is as `wanted` says. The message of the error shows it as it was last seen.
    pub async fn until(
        &self,
        limit: Duration,
        kind: Kind,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = None;
        let outcome = poll(limit, async || {
            last = self.find(kind, name).await?;
            Ok(last.clone().filter(|object| wanted(object)))
        });
        let outcome = outcome.await;
        outcome.with_context(|| {
            let last = last.as_ref().map_or_else(|| "nothing".to_owned(), Json::readable);
            format!(
                "waited {limit:?} for {what} ({} {name} in {:?}); last seen:\n{last}",
                kind.kind,
                self.name()
            )
        })
    }

    /// Waits until the objects that a selector names are as `wanted` says.
    pub async fn until_list(
        &self,
        limit: Duration,
        kind: Kind,
        selector: &str,
        what: &str,
        wanted: impl Fn(&[Value]) -> bool,
    ) -> Result<Vec<Value>> {
        let mut last = Vec::new();
        let outcome = poll(limit, async || {
            last = self.list(kind, selector).await?;
            Ok(wanted(&last).then(|| last.clone()))
        });
        let outcome = outcome.await;
        outcome.with_context(|| {
            let seen: Vec<String> = last.iter().map(Json::readable).collect();
            let seen = seen.join("\n");
            format!(
                "waited {limit:?} for {what} ({} {selector:?} in {:?}); last seen:\n{seen}",
                kind.kind,
                self.name()
            )
        })
    }

    /// Waits until an AgentRuntime has a condition with this status and reason (`True/Configured`) that speaks of
    /// the current generation.
    pub async fn until_condition(
        &self,
        limit: Duration,
        runtime: &str,
        kind: &str,
        short: &str,
    ) -> Result<Value> {
        self.until(limit, kinds::AGENT_RUNTIME, runtime, &format!("{kind} {short}"), |object| {
            let found = object.condition(kind);
            found.short() == short && found.observed_generation == object.generation()
        })
        .await
    }

    /// Waits until an AgentRuntime is enrolled: Ready True/Configured for its current generation.
    pub async fn until_ready(&self, limit: Duration, runtime: &str) -> Result<Value> {
        self.until_condition(limit, runtime, condition::READY, "True/Configured").await
    }

    /// Nothing writes the object for a while: its resourceVersion stays.
    pub async fn stays(&self, time: Duration, kind: Kind, name: &str) -> Result<Value> {
        let before = self.get(kind, name).await?;
        let started = tokio::time::Instant::now();
        while started.elapsed() < time {
            tokio::time::sleep(PAUSE.min(time.saturating_sub(started.elapsed()))).await;
            let now = self.get(kind, name).await?;
            if now.version() != before.version() {
                bail!(
                    "{} {name} was written after {:?}\nbefore: {}\nafter: {}",
                    kind.kind,
                    started.elapsed(),
                    before.readable(),
                    now.readable()
                );
            }
        }
        Ok(before)
    }

    /// Something stays true of an object for a while.
    pub async fn holds(
        &self,
        time: Duration,
        kind: Kind,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        let started = tokio::time::Instant::now();
        loop {
            let now = self.get(kind, name).await?;
            if !wanted(&now) {
                return Err(anyhow!("{what} held {:?} only:\n{}", started.elapsed(), now.readable()));
            }
            if started.elapsed() >= time {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Events about the object of this name, of one reason.
    pub async fn events(&self, about: &str, reason: &str) -> Result<Vec<Value>> {
        let all = self.list(kinds::EVENT, "").await?;
        Ok(all
            .into_iter()
            .filter(|event| event.text("/regarding/name") == about && event.text("/reason") == reason)
            .collect())
    }

    /// Waits until there is an event of this reason about an object.
    pub async fn until_event(&self, limit: Duration, about: &str, reason: &str) -> Result<Value> {
        let outcome = poll(limit, async || Ok(self.events(about, reason).await?.pop())).await;
        outcome.with_context(|| {
            format!("waited {limit:?} for an event {reason} about {about} in {:?}", self.name())
        })
    }

    /// How often something happened according to these events: an Event object stands for a series.
    pub fn occurrences(events: &[Value]) -> i64 {
        events.iter().map(|event| event.number("/series/count").unwrap_or(1)).sum()
    }

    /// ReplicaSets that a Deployment made, oldest first.
    pub async fn replica_sets(&self, deployment: &str) -> Result<Vec<Value>> {
        let uid = self.get(kinds::DEPLOYMENT, deployment).await?.uid().to_owned();
        let mut sets = self.list(kinds::REPLICA_SET, "").await?;
        sets.retain(|set| {
            set.items("/metadata/ownerReferences").iter().any(|owner| owner.text("/uid") == uid)
        });
        let revision =
            |set: &Value| set.annotation("deployment.kubernetes.io/revision").and_then(|r| r.parse().ok());
        sets.sort_by_key(|set| revision(set).unwrap_or(0_i64));
        Ok(sets)
    }

    /// Pods with label `app=<app>` that are not being deleted.
    pub async fn pods(&self, app: &str) -> Result<Vec<Value>> {
        let mut pods = self.list(kinds::POD, &format!("app={app}")).await?;
        pods.retain(|pod| pod.pointer("/metadata/deletionTimestamp").is_none());
        Ok(pods)
    }

    /// Waits until a Deployment or StatefulSet runs its current template only, and returns it.
    pub async fn rolled_out(&self, limit: Duration, kind: Kind, name: &str) -> Result<Value> {
        self.until(limit, kind, name, "the rollout to end", |object| {
            let wanted = object.number("/spec/replicas").unwrap_or(1);
            let count = |field: &str| object.number(&format!("/status/{field}")).unwrap_or_default();
            let one_revision = kind != kinds::STATEFUL_SET
                || object.text("/status/currentRevision") == object.text("/status/updateRevision");
            count("observedGeneration") == object.generation()
                && one_revision
                && ["replicas", "updatedReplicas", "readyReplicas"].iter().all(|field| count(field) == wanted)
        })
        .await
    }

    /// Waits for exactly `count` running Pods of an app, all at their current revision, and returns them.
    pub async fn until_pods(&self, limit: Duration, app: &str, count: usize) -> Result<Vec<Value>> {
        self.until_list(limit, kinds::POD, &format!("app={app}"), &format!("{count} running Pods"), |pods| {
            pods.len() == count
                && pods.iter().all(|pod| {
                    pod.text("/status/phase") == "Running"
                        && pod.pointer("/metadata/deletionTimestamp").is_none()
                })
        })
        .await
    }
}
