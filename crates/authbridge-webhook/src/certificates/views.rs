//! One watched object each: the newest state this process knows, from its watch or its own writes.

use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use kube::{Resource, runtime::watcher::Event};
use tokio::sync::watch;

/// What is known of one object.
#[derive(Debug)]
pub struct Seen<K> {
    /// The first list is complete, so "absent" is a fact.
    pub synced: bool,
    /// The object; `None` = absent, or not known yet.
    pub object: Option<Arc<K>>,
}

impl<K> Clone for Seen<K> {
    fn clone(&self) -> Self {
        Self { synced: self.synced, object: self.object.clone() }
    }
}

/// The newest state of one object; clones share it.
#[derive(Debug)]
pub struct View<K> {
    seen: Arc<watch::Sender<Seen<K>>>,
}

impl<K> Clone for View<K> {
    fn clone(&self) -> Self {
        Self { seen: self.seen.clone() }
    }
}

impl<K> Default for View<K> {
    fn default() -> Self {
        Self { seen: Arc::new(watch::Sender::new(Seen { synced: false, object: None })) }
    }
}

impl<K: Resource> View<K> {
    /// The state now.
    pub fn now(&self) -> Seen<K> {
        self.seen.borrow().clone()
    }

    /// Wakes on every change.
    pub fn subscribe(&self) -> watch::Receiver<Seen<K>> {
        self.seen.subscribe()
    }

    /// Takes a state over unless a newer one of the same object is known: a watch event may be
    /// older than the answer of our own write.
    pub fn put(&self, object: K) {
        self.seen.send_if_modified(|seen| {
            if seen.object.as_deref().is_some_and(|known| newer(known, &object)) {
                return false;
            }
            seen.object = Some(Arc::new(object));
            true
        });
    }

    /// The object is gone.
    pub fn clear(&self) {
        self.seen.send_if_modified(|seen| seen.object.take().is_some());
    }

    /// Sets the outcome of a live read.
    pub fn set(&self, object: Option<K>) {
        self.seen.send_modify(|seen| *seen = Seen { synced: true, object: object.map(Arc::new) });
    }

    /// Follows a watch of this one object for as long as the stream lasts.
    pub async fn follow(&self, mut events: impl Stream<Item = Event<K>> + Unpin) {
        let mut listed = false;
        while let Some(event) = events.next().await {
            match event {
                Event::Init => listed = false,
                Event::InitApply(object) => {
                    listed = true;
                    self.put(object);
                }
                Event::Apply(object) => self.put(object),
                Event::Delete(_) => self.clear(),
                Event::InitDone => {
                    if !listed {
                        self.clear();
                    }
                    self.seen.send_if_modified(|seen| !std::mem::replace(&mut seen.synced, true));
                }
            }
        }
    }
}

/// Whether `known` is a later state of the same object than `other`.
fn newer<K: Resource>(known: &K, other: &K) -> bool {
    let version = |object: &K| object.meta().resource_version.as_deref().and_then(|v| v.parse::<u64>().ok());
    known.meta().uid == other.meta().uid
        && matches!((version(known), version(other)), (Some(known), Some(other)) if known > other)
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use k8s_openapi::api::core::v1::Secret;
    use kube::ResourceExt as _;

    use super::*;

    fn secret(uid: &str, version: &str) -> Secret {
        let mut secret = Secret::default();
        secret.metadata.uid = Some(uid.into());
        secret.metadata.resource_version = Some(version.into());
        secret
    }

    fn version(view: &View<Secret>) -> Option<String> {
        view.now().object.and_then(|s| s.resource_version())
    }

    #[tokio::test]
    async fn a_view_follows_its_watch_and_ignores_what_is_older() {
        let view = View::default();
        let events = [Event::Init, Event::InitApply(secret("a", "5")), Event::InitDone];
        view.follow(stream::iter(events)).await;
        assert!(view.now().synced);
        view.put(secret("a", "9"));
        view.put(secret("a", "7"));
        assert_eq!(version(&view).as_deref(), Some("9"));
        view.put(secret("b", "8"));
        assert_eq!(version(&view).as_deref(), Some("8"), "made anew");
        view.follow(stream::iter([Event::Init, Event::InitDone])).await;
        assert_eq!(version(&view), None, "a relist without it means it is gone");
    }
}
