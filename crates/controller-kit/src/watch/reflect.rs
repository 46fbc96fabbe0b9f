//! Feeding kube's reflector stores, with the store sizes counted.

use std::hash::Hash;

use futures::stream::{BoxStream, Stream, StreamExt};
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{Lookup, ObjectRef};
use kube::runtime::watcher::Event;
use prometheus_client::metrics::gauge::Gauge;

use crate::metrics::{KindLabel, Metrics};

/// One store's share of `kagenti_store_objects{kind}`; several stores of a kind add up.
pub struct StoreGauge {
    gauge: Gauge,
    last: i64,
}

impl StoreGauge {
    /// The share of one more store of `kind`.
    pub fn new(metrics: &Metrics, kind: &str) -> Self {
        let gauge = metrics.store_objects.get_or_create_owned(&KindLabel { kind: kind.to_owned() });
        Self { gauge, last: 0 }
    }

    /// The store now holds this many objects.
    pub fn set(&mut self, len: usize) {
        let len = i64::try_from(len).unwrap_or(i64::MAX);
        self.gauge.inc_by(len - self.last);
        self.last = len;
    }
}

impl Drop for StoreGauge {
    fn drop(&mut self) {
        self.gauge.dec_by(self.last);
    }
}

/// Writes every event into a kube store and hands it on. One store has one writer and one watch.
pub fn reflect<K>(
    events: impl Stream<Item = Event<K>> + Send + 'static,
    mut writer: Writer<K>,
    mut gauge: StoreGauge,
) -> BoxStream<'static, Event<K>>
where
    K: Lookup<DynamicType: Eq + Hash + Clone + Send + Sync> + Clone + Send + Sync + 'static,
{
    events.inspect(move |event| write(&mut writer, &mut gauge, event)).boxed()
}

/// As [`reflect`], for a guarded watch: an object that cannot be read leaves the store, as if it had
/// been deleted, so that nobody works with an old version of it.
pub fn reflect_guarded<K>(
    events: impl Stream<Item = Event<DeserializeGuard<K>>> + Send + 'static,
    mut writer: Writer<K>,
    mut gauge: StoreGauge,
) -> BoxStream<'static, Event<K>>
where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let reader = writer.as_reader();
    events
        .filter_map(move |event| {
            let stored = |bad: &DeserializeGuard<K>| {
                let meta = bad.meta();
                let name = meta.name.as_deref().unwrap_or_default();
                let mut key = ObjectRef::<K>::new(name);
                key.namespace.clone_from(&meta.namespace);
                reader.get(&key).map(|old| Event::Delete(K::clone(&old)))
            };
            let event = match event {
                Event::Init => Some(Event::Init),
                Event::InitDone => Some(Event::InitDone),
                Event::InitApply(DeserializeGuard(Ok(object))) => Some(Event::InitApply(object)),
                // What the new list does not bring leaves the store at its end.
                Event::InitApply(DeserializeGuard(Err(_))) => None,
                Event::Apply(DeserializeGuard(Ok(object))) => Some(Event::Apply(object)),
                Event::Delete(DeserializeGuard(Ok(object))) => Some(Event::Delete(object)),
                Event::Apply(bad) | Event::Delete(bad) => stored(&bad),
            };
            std::future::ready(event)
        })
        .inspect(move |event| write(&mut writer, &mut gauge, event))
        .boxed()
}

fn write<K>(writer: &mut Writer<K>, gauge: &mut StoreGauge, event: &Event<K>)
where
    K: Lookup<DynamicType: Eq + Hash + Clone> + Clone + 'static,
{
    writer.apply_watcher_event(event);
    if !matches!(event, Event::Init | Event::InitApply(_)) {
        gauge.set(writer.as_reader().len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::core::error_boundary::InvalidObject;
    use kube::runtime::reflector::store;

    fn good(name: &str) -> DeserializeGuard<ConfigMap> {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some("ns".to_owned());
        object.metadata.name = Some(name.to_owned());
        DeserializeGuard(Ok(object))
    }

    fn bad(name: &str) -> DeserializeGuard<ConfigMap> {
        let mut object = good(name);
        let metadata = std::mem::take(object.meta_mut());
        DeserializeGuard(Err(InvalidObject { error: "broken".to_owned(), metadata }))
    }

    /// Runtime §2.7: the rest of the list goes on, and a version that cannot be read replaces the old
    /// one by nothing.
    #[tokio::test]
    async fn a_bad_object_leaves_the_store_and_the_rest_stays() {
        let metrics = Metrics::new("test");
        let gauge = metrics.store_objects.get_or_create_owned(&KindLabel { kind: "configmaps".to_owned() });
        let (reader, writer) = store();
        let events = [
            Event::Init,
            Event::InitApply(good("a")),
            Event::InitApply(bad("b")),
            Event::InitApply(good("c")),
            Event::InitDone,
            Event::Apply(bad("a")),
        ];
        let mut stream =
            reflect_guarded(stream::iter(events), writer, StoreGauge::new(&metrics, "configmaps"));
        let mut seen = Vec::new();
        while let Some(event) = stream.next().await {
            seen.push(event.to_string());
        }
        assert_eq!(seen, ["Init", "InitApply(a)", "InitApply(c)", "InitDone", "Delete(a)"]);
        assert_eq!(reader.len(), 1);
        assert_eq!(gauge.get(), 1);
        drop(stream);
        assert_eq!(gauge.get(), 0, "a store that ended holds nothing");
    }
}
