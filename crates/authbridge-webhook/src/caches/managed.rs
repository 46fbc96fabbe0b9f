//! Metadata of the ServiceAccounts and ConfigMaps this webhook made (webhook §11.2, §12.3).

use std::{
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use api_types::{names::annotation, owner::Workload};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use lru::LruCache;
use tokio::time::Instant;

use super::table::Table;
use crate::injection::ExistingConfigMap;

/// Annotation with the hash of what the field manager of `helper.conf` wrote; a key of its own, so
/// that the two managers of one ConfigMap do not overwrite each other's.
pub const HELPER_CONTENT_HASH: &str = "kagenti.io/helper-content-hash";

/// How long an ensured ServiceAccount is believed in without a watch event (webhook §11.2).
const SEEN_FOR: Duration = Duration::from_mins(10);
/// Most ServiceAccounts remembered.
const SEEN_LIMIT: usize = 20_000;

/// What is known of one managed ConfigMap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ManagedConfigMap {
    /// UID.
    pub uid: Box<str>,
    /// resourceVersion as text, for preconditions.
    pub resource_version: Box<str>,
    /// Hash of the whole content.
    pub content_hash: Option<Box<str>>,
    /// Hash of a lone `helper.conf`.
    pub helper_hash: Option<Box<str>>,
    /// Its controller.
    pub controller: Option<Box<OwnerReference>>,
    /// Any ownerReference at all.
    pub owned: bool,
    /// The user asked to keep its `pipeline`.
    pub pinned: bool,
}

impl From<&ObjectMeta> for ManagedConfigMap {
    fn from(meta: &ObjectMeta) -> Self {
        let of = |key: &str| {
            let value = meta.annotations.as_ref()?.get(key)?;
            Some(value.as_str().into())
        };
        let owners = meta.owner_references.as_deref().unwrap_or_default();
        Self {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            resource_version: meta.resource_version.as_deref().unwrap_or_default().into(),
            content_hash: of(annotation::CONTENT_HASH),
            helper_hash: of(HELPER_CONTENT_HASH),
            controller: owners.iter().find(|o| o.controller == Some(true)).cloned().map(Box::new),
            owned: !owners.is_empty(),
            pinned: of(annotation::CONFIG_PINNED).is_some_and(|v| &*v == "true"),
        }
    }
}

impl ManagedConfigMap {
    /// Whether it is at least as new as `other`. Versions of one object compare as numbers; when one
    /// is none the new one wins.
    fn not_older_than(&self, other: &Self) -> bool {
        match (self.resource_version.parse::<u64>(), other.resource_version.parse::<u64>()) {
            (Ok(own), Ok(other)) => own >= other,
            _ => true,
        }
    }

    /// The form the pure half asks for.
    pub fn existing(&self) -> ExistingConfigMap {
        ExistingConfigMap { controller: self.controller.as_deref().cloned() }
    }

    /// Whether its controller is the workload, by group, kind and name.
    pub fn belongs_to(&self, workload: &Workload) -> bool {
        self.controller.as_ref().is_some_and(|c| {
            c.kind == workload.kind
                && c.name == workload.name
                && api_types::owner::group_of(&c.api_version) == workload.group
        })
    }
}

/// Managed ConfigMaps by namespace and name.
#[derive(Debug, Default)]
pub struct ManagedConfigMaps {
    /// The rows.
    pub table: Table<ManagedConfigMap>,
}

impl ManagedConfigMaps {
    /// Puts what a watch event or the answer of a write says, unless something newer is known.
    pub fn put(&self, namespace: &str, name: &str, meta: &ObjectMeta) {
        let row = ManagedConfigMap::from(meta);
        self.table.put_if(namespace, name, row, |old, new| new.not_older_than(old));
    }
}

/// What is known of a ServiceAccount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// It exists and carries our label.
    Ours,
    /// It exists without our label.
    Foreign,
}

/// ServiceAccounts that exist: from the label-filtered watch, and those just ensured.
#[derive(Debug)]
pub struct ManagedServiceAccounts {
    table: Table<()>,
    seen: Mutex<Seen>,
}

/// Namespace and name -> when it was seen, and as what.
type Seen = LruCache<(Box<str>, Box<str>), (Instant, Account)>;

impl Default for ManagedServiceAccounts {
    fn default() -> Self {
        let limit = NonZeroUsize::new(SEEN_LIMIT).unwrap_or(NonZeroUsize::MIN);
        Self { table: Table::default(), seen: Mutex::new(LruCache::new(limit)) }
    }
}

impl ManagedServiceAccounts {
    /// What is known; `None` = ask the API server.
    pub fn known(&self, namespace: &str, name: &str) -> Option<Account> {
        if self.table.contains(namespace, name) {
            return Some(Account::Ours);
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Box::from(namespace), Box::from(name));
        let (at, account) = *seen.get(&key)?;
        if at.elapsed() < SEEN_FOR {
            return Some(account);
        }
        seen.pop(&key);
        None
    }

    /// Remembers an account that was just created or found.
    pub fn remember(&self, namespace: &str, name: &str, account: Account) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.put((namespace.into(), name.into()), (Instant::now(), account));
    }

    /// A watch event: it exists.
    pub fn put(&self, namespace: &str, name: &str) {
        self.table.put(namespace, name, ());
    }

    /// A watch event: it is gone, also for the memory of recent writes.
    pub fn remove(&self, namespace: &str, name: &str) {
        self.table.remove(namespace, name);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.pop(&(Box::from(namespace), Box::from(name)));
    }

    /// Starts a relist of one namespace, or of everything.
    pub fn begin_relist(&self, namespace: Option<&str>) {
        self.table.begin_relist(namespace);
    }

    /// Ends a relist of one namespace, or of everything.
    pub fn finish_relist(&self, namespace: Option<&str>) {
        for (space, name, ()) in self.table.finish_relist(namespace) {
            self.remove(&space, &name);
        }
    }

    /// Number of labelled accounts.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(version: &str, hash: &str) -> ObjectMeta {
        ObjectMeta {
            resource_version: Some(version.into()),
            annotations: Some([(annotation::CONTENT_HASH.to_owned(), hash.to_owned())].into()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_late_watch_event_does_not_undo_what_a_write_returned() {
        let maps = ManagedConfigMaps::default();
        maps.put("ns", "m", &meta("12", "new"));
        maps.put("ns", "m", &meta("9", "old"));
        let hash = maps.table.get("ns", "m").unwrap().content_hash;
        assert_eq!(hash.as_deref(), Some("new"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_ensured_account_is_believed_in_for_ten_minutes_or_until_deleted() {
        let accounts = ManagedServiceAccounts::default();
        accounts.remember("ns", "a", Account::Foreign);
        accounts.remember("ns", "b", Account::Ours);
        assert_eq!(accounts.known("ns", "a"), Some(Account::Foreign));
        accounts.remove("ns", "b");
        assert_eq!(accounts.known("ns", "b"), None, "a deletion is noticed at once");
        tokio::time::advance(SEEN_FOR).await;
        assert_eq!(accounts.known("ns", "a"), None);
        accounts.put("ns", "c");
        assert_eq!(accounts.known("ns", "c"), Some(Account::Ours));
    }
}
