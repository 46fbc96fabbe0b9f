//! The watches that fill the index (MLflow §6.3, packaging §7).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use api_types::names::SPIFFE_CSI_DRIVER;
use futures::StreamExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::storage::v1::CSIDriver;
use kube::api::ListParams;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};

use super::{Input, Surroundings};
use crate::apply::is_forbidden;
use crate::backoff::jitter;
use crate::lean::LeanMeta;
use crate::message::message_of;
use crate::scope::{Scope, api_in};
use crate::watch::{self, Presence, TroubleKind, WatchOptions, Watches};

/// Objects of one page of a list: while it is read they are in memory whole.
const PAGE: u32 = 200;
/// How often a namespace is read where it cannot be watched (packaging §7).
const POLL: Duration = Duration::from_secs(60);
/// How often something that was forbidden is tried again.
const FORBIDDEN: Duration = Duration::from_secs(600);
/// How often a read that failed otherwise is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Told which namespace has other inputs now; `None` = every namespace.
pub type Wake = Arc<dyn Fn(Option<&str>) + Send + Sync>;

#[derive(Clone)]
struct Watcher {
    client: Client,
    watches: Watches,
    around: Arc<Surroundings>,
    wake: Wake,
}

/// The watches of one process, by name; each runs for ever.
pub fn tasks(
    client: &Client,
    watches: &Watches,
    scope: &Scope,
    around: &Arc<Surroundings>,
    wake: Wake,
) -> Vec<(&'static str, BoxFuture<'static, ()>)> {
    let inputs = Watcher { client: client.clone(), watches: watches.clone(), around: around.clone(), wake };
    let register = |input, namespace: Option<&str>| around.sources.register(input, namespace);
    let mut tasks: Vec<(&'static str, BoxFuture<'static, ()>)> = Vec::new();
    register(Input::Spire, None);
    tasks.push(("watch csidrivers", Box::pin(inputs.clone().spire())));
    let operator = around.operator_namespace.clone();
    for input in [Input::Gates, Input::Platform] {
        register(input, Some(&operator));
        tasks.push(("watch configmaps", Box::pin(inputs.clone().configs(input, Some(operator.clone())))));
    }
    for namespace in watch::namespaces_of(scope) {
        for input in [Input::Authbridge, Input::Runtime] {
            register(input, namespace.as_deref());
            tasks.push(("watch configmaps", Box::pin(inputs.clone().configs(input, namespace.clone()))));
        }
        register(Input::Namespaces, namespace.as_deref());
        tasks.push(match namespace {
            None => ("watch namespaces", Box::pin(inputs.clone().namespaces())),
            Some(name) => ("poll namespace", Box::pin(inputs.clone().poll_namespace(name))),
        });
    }
    tasks
}

impl Watcher {
    fn wake(&self, namespace: Option<&str>) {
        (self.wake)(namespace);
    }

    /// A refused watch counts as an empty one; any other trouble is waited out.
    fn options(&self, kind: &'static str, input: Input, namespace: Option<&str>) -> WatchOptions {
        let (around, namespace) = (self.around.clone(), namespace.map(str::to_owned));
        WatchOptions::new(kind).degrade_when_refused().on_trouble(move |trouble| {
            if trouble.kind == TroubleKind::Forbidden {
                if input == Input::Namespaces {
                    around.set_unreadable();
                }
                around.sources.troubled(input, namespace.as_deref(), &trouble.text);
            }
        })
    }

    async fn configs(self, input: Input, namespace: Option<String>) {
        let Some(name) = input.config_map() else { return };
        let api = api_in::<ConfigMap>(&self.client, namespace.as_deref());
        // By field, so that a Role may name the object.
        let config = watcher::Config::default().page_size(PAGE).fields(&format!("metadata.name={name}"));
        let scope = namespace.as_deref();
        let options = self.options("configmaps", input, scope).check(format!("configmaps {name}"));
        let mut events = watch::watch_stream(&self.watches, api, config, options);
        let mut seen = HashSet::new();
        let everywhere = matches!(input, Input::Gates | Input::Platform);
        let wake = |namespace: &str| self.wake(Some(namespace).filter(|_| !everywhere));
        while let Some(event) = events.next().await {
            match event {
                Event::Init => seen.clear(),
                Event::InitApply(map) | Event::Apply(map) => {
                    let owner = map.namespace().unwrap_or_default();
                    seen.insert(owner.clone());
                    if self.around.put_config(input, &owner, Some(map.data.unwrap_or_default())) {
                        wake(&owner);
                    }
                }
                Event::InitDone => {
                    self.around.retain_config(input, scope, &seen).iter().for_each(|owner| wake(owner));
                    seen = HashSet::new();
                    self.around.sources.synced(input, scope);
                }
                Event::Delete(map) => {
                    let owner = map.namespace().unwrap_or_default();
                    if self.around.put_config(input, &owner, None) {
                        wake(&owner);
                    }
                }
            }
        }
    }

    async fn namespaces(self) {
        let api = Api::<LeanMeta<Namespace>>::all(self.client.clone());
        let options = self.options("namespaces", Input::Namespaces, None);
        let config = watcher::Config::default().page_size(PAGE);
        let mut events = watch::watch_stream(&self.watches, api, config, options);
        let mut seen = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Event::Init => seen.clear(),
                Event::InitApply(object) | Event::Apply(object) => {
                    seen.insert(object.name_any());
                    self.saw_namespace(&object);
                }
                Event::InitDone => {
                    self.around.retain_namespaces(&std::mem::take(&mut seen));
                    self.around.sources.synced(Input::Namespaces, None);
                }
                Event::Delete(object) => self.around.remove_namespace(&object.name_any()),
            }
        }
    }

    fn saw_namespace(&self, object: &LeanMeta<Namespace>) {
        let name = object.name_any();
        let terminating = object.metadata.deletion_timestamp.is_some();
        if self.around.put_namespace(&name, object.metadata.labels.as_ref(), terminating) {
            self.wake(Some(&name));
        }
    }

    /// A Role cannot allow to watch one namespace, so it is read now and then.
    async fn poll_namespace(self, name: String) {
        let api = Api::<LeanMeta<Namespace>>::all(self.client.clone());
        let mut said = false;
        loop {
            let pause = match api.get_opt(&name).await {
                Ok(Some(object)) => {
                    self.saw_namespace(&object);
                    POLL
                }
                Ok(None) => {
                    self.around.remove_namespace(&name);
                    RETRY
                }
                Err(error) if is_forbidden(&error) => {
                    self.around.set_unreadable();
                    if !std::mem::replace(&mut said, true) {
                        let why = message_of(&error);
                        tracing::info!(
                            namespace = name,
                            "namespace labels cannot be read and count as absent: {why}"
                        );
                        self.wake(Some(&name));
                    }
                    FORBIDDEN
                }
                Err(error) => {
                    tracing::debug!(namespace = name, "cannot be read: {}", message_of(&error));
                    tokio::time::sleep(jitter(RETRY, 0.1)).await;
                    continue;
                }
            };
            self.around.sources.synced(Input::Namespaces, Some(&name));
            tokio::time::sleep(jitter(pause, 0.1)).await;
        }
    }

    /// A missing right counts as "no SPIRE" (runtime §19.4).
    async fn spire(self) {
        let api = Api::<LeanMeta<CSIDriver>>::all(self.client.clone());
        let selector = format!("metadata.name={SPIFFE_CSI_DRIVER}");
        let mut said = false;
        // A first list tells whether the watch is allowed at all: where it is not, it must not be tried in a loop.
        while let Err(error) = api.list(&ListParams::default().fields(&selector)).await {
            let pause = if is_forbidden(&error) {
                if !std::mem::replace(&mut said, true) {
                    tracing::info!("CSIDriver {SPIFFE_CSI_DRIVER} counts as absent: {}", message_of(&error));
                }
                self.around.sources.synced(Input::Spire, None);
                FORBIDDEN
            } else {
                RETRY
            };
            tokio::time::sleep(jitter(pause, 0.1)).await;
        }
        let options = self.options("csidrivers", Input::Spire, None);
        let config = watcher::Config::default().fields(&selector);
        let mut events = watch::watch_stream(&self.watches, api, config, options);
        let mut presence = Presence::default();
        while let Some(event) = events.next().await {
            let Some(present) = presence.after(&event) else { continue };
            if self.around.set_spire(present) {
                tracing::info!(present, "CSIDriver {SPIFFE_CSI_DRIVER}");
                self.wake(None);
            }
            self.around.sources.synced(Input::Spire, None);
        }
    }
}
