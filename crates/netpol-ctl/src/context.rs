//! What every pass works with: handles, indexes and the little that is remembered between passes.

use std::{
    collections::HashSet,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use controller_kit::{
    controller::{Common, Handles},
    watch::Key as ObjectKey,
};

use crate::{
    api_server::Endpoints,
    desired::Rules,
    index::{Indexes, Slot},
    metrics::OwnMetrics,
    settings::Settings,
    sources::Source,
};

/// What the queue holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// The policies of the workloads of one name.
    Slot(Slot),
    /// A policy: does anybody want it?
    Policy(ObjectKey),
    /// A card with finalizers of the previous operator.
    Card(ObjectKey),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Slot(slot) => slot.fmt(f),
            Self::Policy(key) => write!(f, "NetworkPolicy {key}"),
            Self::Card(key) => write!(f, "AgentCard {key}"),
        }
    }
}

/// Handles and memories of the process; what every controller has is reached through `Deref`.
pub struct Context {
    common: Common<Key, Source>,
    /// Flags of this component.
    pub settings: Settings,
    /// What every policy has in common.
    pub rules: Rules,
    /// What the watches have seen.
    pub index: Arc<Indexes>,
    /// Where the API server is.
    pub endpoints: Arc<Endpoints>,
    /// Metrics.
    pub metrics: OwnMetrics,
    /// Cards (by uid) that were told that nothing selects their Pods.
    unselectable: Mutex<HashSet<String>>,
}

impl Deref for Context {
    type Target = Common<Key, Source>;

    fn deref(&self) -> &Self::Target {
        &self.common
    }
}

impl Context {
    /// A context without anything in its indexes.
    pub fn new(handles: Handles, settings: Settings) -> Self {
        let index = Arc::new(Indexes::default());
        let endpoints = Arc::new(Endpoints::new(&settings.apiserver_cidrs.0));
        Self {
            rules: Rules::new(&settings, &handles.operator_namespace),
            metrics: OwnMetrics::register(&handles.metrics, &index, &endpoints),
            common: Common::new(handles, "networkpolicy"),
            settings,
            index,
            endpoints,
            unselectable: Mutex::default(),
        }
    }

    /// Asks for a look at the workloads of a name.
    pub fn wake(&self, slot: Slot, after: Duration) {
        self.queue.add(Key::Slot(slot), after);
    }

    /// Asks for a look at everything in a namespace, or everywhere.
    pub fn wake_all(&self, namespace: Option<&str>, after: Duration) {
        for slot in self.index.slots(namespace) {
            self.wake(slot, after);
        }
    }

    /// True the first time it is asked for a card.
    pub fn first_complaint(&self, card_uid: &str) -> bool {
        self.unselectable.lock().unwrap_or_else(PoisonError::into_inner).insert(card_uid.to_owned())
    }

    /// The complaint about a card is settled, or the card is gone.
    pub fn settle_complaint(&self, card_uid: &str) {
        self.unselectable.lock().unwrap_or_else(PoisonError::into_inner).remove(card_uid);
    }
}
