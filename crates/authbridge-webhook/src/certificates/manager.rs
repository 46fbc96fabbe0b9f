//! The certificate writer: carries out what [`super::plan`] decides, on the replica that holds the
//! Lease (packaging §8).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use api_types::names::manager as managers;
use controller_kit::lease::Leadership;
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        core::v1::Secret,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{
    bundle::{self, Configuration},
    pki::{Authority, Certificate},
    plan::{self, Action, Lifetimes, Sight, wanted_bundle},
    secrets::{self, PREVIOUS, PREVIOUS_UNTIL, Serving, authority_data, authority_from_secret},
    views::View,
};

/// The decision is made again this often without any event: renewals go by the wall clock.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Wait after a failed step.
const RETRY: Duration = Duration::from_secs(2);

/// Where the certificate lives and for whom it is.
#[derive(Clone, Debug)]
pub struct Place {
    /// Namespace of the two Secrets.
    pub namespace: String,
    /// The serving Secret; the authority Secret has `-ca` appended.
    pub secret: String,
    /// Subject alternative names.
    pub names: BTreeSet<String>,
}

impl Place {
    /// Name of the authority Secret.
    pub fn authority_secret(&self) -> String {
        format!("{}-ca", self.secret)
    }
}

/// The watched objects.
#[derive(Clone, Debug, Default)]
pub struct Views {
    /// The serving Secret.
    pub serving: View<Secret>,
    /// The authority Secret; watched on every replica that may lead.
    pub authority: View<Secret>,
    /// The mutating configuration; `None` = not ours to publish to.
    pub mutating: Option<View<MutatingWebhookConfiguration>>,
    /// The validating configuration; `None` = not ours to publish to.
    pub validating: Option<View<ValidatingWebhookConfiguration>>,
}

impl Views {
    /// Whether every object is known.
    pub fn synced(&self) -> bool {
        self.serving.now().synced
            && self.authority.now().synced
            && self.mutating.as_ref().is_none_or(|view| view.now().synced)
            && self.validating.as_ref().is_none_or(|view| view.now().synced)
    }

    /// Whether both configurations exist and trust these certificates.
    pub fn trust(&self, wanted: &[&Certificate]) -> bool {
        trusts(self.mutating.as_ref(), wanted) && trusts(self.validating.as_ref(), wanted)
    }
}

fn trusts<K: Configuration>(view: Option<&View<K>>, wanted: &[&Certificate]) -> bool {
    view.is_none_or(|view| view.now().object.is_some_and(|c| bundle::carries(&*c, wanted)))
}

/// A step that failed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A certificate could not be made.
    #[error("making the certificate")]
    Make(#[from] secrets::SecretError),
    /// The API server refused.
    #[error("writing {object}")]
    Write {
        /// The object.
        object: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

/// Makes, renews and publishes.
#[derive(Debug)]
pub struct Manager {
    client: Debugless,
    place: Place,
    lifetimes: Lifetimes,
    views: Views,
    remembered: Option<Serving>,
    published: Option<(Vec<Certificate>, Timestamp)>,
}

struct Debugless(Client);

impl std::fmt::Debug for Debugless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Manager {
    /// A manager that has seen nothing yet.
    pub fn new(client: Client, place: Place, lifetimes: Lifetimes, views: Views) -> Self {
        Self { client: Debugless(client), place, lifetimes, views, remembered: None, published: None }
    }

    /// Works whenever this replica holds the Lease, for as long as it is polled. The legacy guard
    /// does not stop it: the webhook's own authority may be written at any time (packaging §12).
    pub async fn run(mut self, leadership: Leadership) {
        let mut serving = self.views.serving.subscribe();
        let mut authority = self.views.authority.subscribe();
        let mut mutating = self.views.mutating.as_ref().map(View::subscribe);
        let mut validating = self.views.validating.as_ref().map(View::subscribe);
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = serving.changed() => {}
                _ = authority.changed() => {}
                () = changed(&mut mutating) => {}
                () = changed(&mut validating) => {}
            }
            let now = Timestamp::now();
            if !self.views.synced() {
                continue;
            }
            self.remember(now);
            if !leadership.holds_lease() {
                // A new leader waits the whole overlap again; that is the safe side.
                self.published = None;
                continue;
            }
            if let Err(error) = self.step(now).await {
                tracing::warn!(error = %controller_kit::message::message_of(&error), "serving certificate");
                sleep(RETRY).await;
            }
        }
    }

    /// Keeps the last serving content that could be used, to put it back when it is lost.
    pub fn remember(&mut self, now: Timestamp) {
        let Some(secret) = self.views.serving.now().object else { return };
        if let Ok(serving) = Serving::from_secret(&secret)
            && plan::usable(&serving, &self.place.names, now)
        {
            self.remembered = Some(serving);
        }
    }

    /// Publishes the wanted bundle where it is missing, then carries out at most one action.
    /// Returns that action.
    pub async fn step(&mut self, now: Timestamp) -> Result<Action, StepError> {
        let serving_secret = self.views.serving.now().object;
        let authority_secret = self.views.authority.now().object;
        let serving =
            serving_secret.as_deref().and_then(|secret| readable("serving", Serving::from_secret(secret)));
        let authority = authority_secret
            .as_deref()
            .and_then(|secret| readable("authority", authority_from_secret(secret)));
        // A lost serving Secret does not take its authority out of the bundle: the leaf is served on.
        let remembered = self.remembered.clone();
        let trusted = serving.as_ref().or(remembered.as_ref());
        let wanted = wanted_bundle(authority.as_ref(), trusted, now);
        let published_since = self.publish(&wanted, now).await?;
        let sight = Sight {
            authority: authority.as_ref(),
            serving: serving.as_ref(),
            remembered: remembered.as_ref(),
            published_since,
            names: &self.place.names,
            now,
        };
        let action = plan::decide(&sight, &self.lifetimes);
        match (action, &authority, &serving) {
            (Action::NewAuthority, ..) => {
                let made =
                    Authority::generate(now, self.lifetimes.authority).map_err(secrets::SecretError::from)?;
                let until = made.certificate().not_after();
                self.write_authority(authority_secret.as_deref(), &made).await?;
                tracing::info!(%until, "made a new certificate authority");
            }
            (Action::Restore, ..) => {
                if let Some(remembered) = &remembered {
                    self.write_serving(serving_secret.as_deref(), remembered).await?;
                    tracing::warn!(secret = self.place.secret, "put the lost serving certificate back");
                }
            }
            (Action::Issue, Some(authority), _) => {
                // An expired leaf has nothing to lose: it is replaced whatever is published.
                let alive = serving.as_ref().filter(|s| plan::usable(s, &self.place.names, now));
                let change = alive.is_some_and(|s| s.authority != *authority.certificate());
                if change && !self.read_back(&[authority.certificate()]).await? {
                    return Ok(Action::Rest);
                }
                let before = serving.as_ref().or(remembered.as_ref());
                let next = Serving::issue(authority, before, &self.place.names, now, self.lifetimes.leaf)?;
                let until = next.leaf.not_after();
                self.write_serving(serving_secret.as_deref(), &next).await?;
                tracing::info!(%until, new_authority = change, "issued a serving certificate");
            }
            (Action::DropPrevious, _, Some(serving)) => {
                self.write_serving(serving_secret.as_deref(), &serving.clone().without_previous()).await?;
                tracing::info!("the previous certificate authority has left the bundle");
            }
            // Nothing to do, or no longer what the action was decided on.
            (Action::Rest | Action::Issue | Action::DropPrevious, ..) => {}
        }
        Ok(action)
    }

    /// Brings every managed configuration to the wanted bundle. Returns since when all of them have
    /// carried it without a break.
    async fn publish(
        &mut self,
        wanted: &[&Certificate],
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StepError> {
        if wanted.is_empty() {
            return Ok(None);
        }
        let client = &self.client.0;
        let before = self.views.trust(wanted);
        publish_one(client, self.views.mutating.as_ref(), wanted).await?;
        publish_one(client, self.views.validating.as_ref(), wanted).await?;
        if !self.views.trust(wanted) {
            self.published = None;
            return Ok(None);
        }
        let same = before
            && self.published.as_ref().is_some_and(|(have, _)| wanted.iter().all(|want| have.contains(want)));
        if !same {
            self.published = Some((wanted.iter().map(|&c| c.clone()).collect(), now));
        }
        Ok(self.published.as_ref().map(|(_, since)| *since))
    }

    /// Reads both configurations from the API server: the leaf must not change on the word of a
    /// watch alone.
    async fn read_back(&self, wanted: &[&Certificate]) -> Result<bool, StepError> {
        read_one(&self.client.0, self.views.mutating.as_ref()).await?;
        read_one(&self.client.0, self.views.validating.as_ref()).await?;
        Ok(self.views.trust(wanted))
    }

    async fn write_authority(&self, stored: Option<&Secret>, authority: &Authority) -> Result<(), StepError> {
        let name = self.place.authority_secret();
        self.write(&self.views.authority, &name, stored, &authority_data(authority), &BTreeMap::new()).await
    }

    async fn write_serving(&self, stored: Option<&Secret>, serving: &Serving) -> Result<(), StepError> {
        let until = serving.previous_until.map(|t| t.to_string());
        let annotations = BTreeMap::from([(PREVIOUS_UNTIL, until)]);
        self.write(&self.views.serving, &self.place.secret, stored, serving.data(), &annotations).await
    }

    /// Creates the Secret or patches the very version that was looked at. When somebody else was
    /// faster, the newest state is read and the next step decides anew.
    async fn write(
        &self,
        view: &View<Secret>,
        name: &str,
        stored: Option<&Secret>,
        data: &BTreeMap<String, ByteString>,
        annotations: &BTreeMap<&str, Option<String>>,
    ) -> Result<(), StepError> {
        let api = Api::<Secret>::namespaced(self.client.0.clone(), &self.place.namespace);
        let object = || format!("Secret {}/{name}", self.place.namespace);
        let result = match stored {
            None => {
                let params = PostParams {
                    field_manager: Some(managers::WEBHOOK_CA.to_owned()),
                    ..PostParams::default()
                };
                api.create(&params, &self.fresh(name, data, annotations)).await
            }
            Some(stored) => {
                let params = PatchParams {
                    field_manager: Some(managers::WEBHOOK_CA.to_owned()),
                    ..PatchParams::default()
                };
                let body = merge_body(stored, data, annotations);
                api.patch(name, &params, &Patch::Merge(&body)).await
            }
        };
        match result {
            Ok(written) => view.put(written),
            Err(kube::Error::Api(status))
                if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
            {
                tracing::debug!(object = object(), "changed by somebody else, reading it again");
                let live = api.get_opt(name).await;
                let live = live.map_err(|e| StepError::Write { object: object(), source: Box::new(e) })?;
                view.set(live);
            }
            Err(source) => return Err(StepError::Write { object: object(), source: Box::new(source) }),
        }
        Ok(())
    }

    fn fresh(
        &self,
        name: &str,
        data: &BTreeMap<String, ByteString>,
        annotations: &BTreeMap<&str, Option<String>>,
    ) -> Secret {
        let annotations: BTreeMap<String, String> =
            annotations.iter().filter_map(|(k, v)| Some(((*k).to_owned(), v.clone()?))).collect();
        Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.place.namespace.clone()),
                annotations: (!annotations.is_empty()).then_some(annotations),
                ..ObjectMeta::default()
            },
            data: Some(data.clone()),
            type_: Some("kubernetes.io/tls".to_owned()),
            ..Secret::default()
        }
    }
}

async fn changed<K>(receiver: &mut Option<tokio::sync::watch::Receiver<super::views::Seen<K>>>) {
    let Some(receiver) = receiver else { return std::future::pending().await };
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn publish_one<K: Configuration>(
    client: &Client,
    view: Option<&View<K>>,
    wanted: &[&Certificate],
) -> Result<(), StepError> {
    let Some(view) = view else { return Ok(()) };
    // Not installed yet: readiness says so, and the watch wakes us when it is.
    let Some(configuration) = view.now().object else { return Ok(()) };
    if configuration.entries().is_empty() || bundle::is_exactly(&*configuration, wanted) {
        return Ok(());
    }
    match bundle::publish(client, &*configuration, wanted).await {
        Ok(stored) => {
            tracing::info!(
                configuration = configuration.meta().name,
                certificates = wanted.len(),
                "published caBundle"
            );
            view.put(stored);
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
            // Replaced or deleted meanwhile; the watch tells what is there now.
            tracing::debug!(configuration = configuration.meta().name, "changed while publishing");
            Ok(())
        }
        Err(source) => {
            let object = format!(
                "caBundle of {} {}",
                K::kind(&()),
                configuration.meta().name.clone().unwrap_or_default()
            );
            Err(StepError::Write { object, source: Box::new(source) })
        }
    }
}

async fn read_one<K: Configuration>(client: &Client, view: Option<&View<K>>) -> Result<(), StepError> {
    let Some(view) = view else { return Ok(()) };
    let Some(name) = view.now().object.and_then(|c| c.meta().name.clone()) else { return Ok(()) };
    match Api::<K>::all(client.clone()).get_opt(&name).await {
        Ok(live) => {
            view.set(live);
            Ok(())
        }
        Err(source) => {
            let object = format!("reading back {} {name}", K::kind(&()));
            Err(StepError::Write { object, source: Box::new(source) })
        }
    }
}

/// A damaged content counts as absent and is repaired.
fn readable<T>(which: &str, content: Result<T, secrets::SecretError>) -> Option<T> {
    content
        .inspect_err(|error| {
            tracing::debug!(which, error = %controller_kit::message::message_of(error), "unusable certificate Secret");
        })
        .ok()
}

/// A merge patch on the version that was looked at: our keys, and nothing of other people's.
fn merge_body(
    stored: &Secret,
    data: &BTreeMap<String, ByteString>,
    annotations: &BTreeMap<&str, Option<String>>,
) -> Value {
    let mut values: BTreeMap<&str, Value> = data.iter().map(|(k, v)| (k.as_str(), json!(v))).collect();
    let had_previous = stored.data.as_ref().is_some_and(|d| d.contains_key(PREVIOUS));
    if had_previous && !data.contains_key(PREVIOUS) {
        values.insert(PREVIOUS, Value::Null);
    }
    json!({
        "metadata": {
            "uid": stored.metadata.uid,
            "resourceVersion": stored.metadata.resource_version,
            "annotations": annotations,
        },
        "data": values,
    })
}
