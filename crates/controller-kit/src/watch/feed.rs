//! Feeding an index from the events of a watch.
//!
//! A new list changes an index object by object and removes at its end what it did not name, so memory does not double
//! and unchanged objects wake nothing (style part 3, "relist").

use std::collections::HashSet;
use std::hash::Hash;

use futures::stream::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event};

/// Objects of one page of a list: while it is read they are in memory whole.
const PAGE: u32 = 200;

/// Watch everything, in lists of small pages; selectors are added to it.
pub fn pages() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// What an event means for an index.
#[derive(Debug)]
pub enum Step<'a, K, Id> {
    /// The object is new or another than before. Whoever keeps it names it in the [`Listing`].
    Put(K, &'a mut Listing<Id>),
    /// The object is gone.
    Remove(K),
    /// A list is complete: what it did not name is gone.
    Listed(HashSet<Id>),
}

/// The objects that the running list has named.
#[derive(Debug)]
pub struct Listing<Id>(Option<HashSet<Id>>);

impl<Id: Eq + Hash> Listing<Id> {
    /// The list has this object. Nothing is noted while no list is running.
    pub fn saw(&mut self, id: Id) {
        if let Some(seen) = &mut self.0 {
            seen.insert(id);
        }
    }
}

/// Calls `step` for every event, until the watch ends.
pub async fn feed<K, Id: Eq + Hash>(
    mut events: impl Stream<Item = Event<K>> + Unpin,
    mut step: impl FnMut(Step<'_, K, Id>),
) {
    let mut listing = Listing(None);
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listing.0 = Some(HashSet::new()),
            Event::InitApply(object) | Event::Apply(object) => step(Step::Put(object, &mut listing)),
            Event::InitDone => step(Step::Listed(listing.0.take().unwrap_or_default())),
            Event::Delete(object) => step(Step::Remove(object)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    #[tokio::test]
    async fn a_list_ends_with_what_it_named() {
        let events = [
            Event::Apply("before"),
            Event::Init,
            Event::InitApply("a"),
            Event::InitApply("not kept"),
            Event::InitApply("b"),
            Event::InitDone,
            Event::Apply("c"),
            Event::Delete("a"),
            Event::Init,
            Event::InitDone,
        ];
        let mut told = Vec::new();
        feed(stream::iter(events), |step| match step {
            Step::Put("not kept", _) => {}
            Step::Put(name, listing) => {
                listing.saw(name);
                told.push(format!("put {name}"));
            }
            Step::Remove(name) => told.push(format!("remove {name}")),
            Step::Listed(seen) => {
                let mut seen: Vec<_> = seen.into_iter().collect();
                seen.sort_unstable();
                told.push(format!("listed {}", seen.join(" ")));
            }
        })
        .await;
        assert_eq!(told, ["put before", "put a", "put b", "listed a b", "put c", "remove a", "listed "]);
    }
}
