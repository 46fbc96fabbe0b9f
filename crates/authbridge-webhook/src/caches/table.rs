//! A two-level map `namespace -> name -> row` that survives relists without a second copy.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// Rows by namespace and name.
///
/// A relist marks what it sees and then drops the rest of its scope, so readers never see an empty
/// table while a watch starts again.
#[derive(Debug)]
pub struct Table<V> {
    inner: RwLock<Inner<V>>,
}

#[derive(Debug)]
struct Inner<V> {
    rows: HashMap<Box<str>, HashMap<Box<str>, Row<V>>>,
    len: usize,
}

#[derive(Debug)]
struct Row<V> {
    value: V,
    /// Put since the last relist began.
    seen: bool,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { inner: RwLock::new(Inner { rows: HashMap::new(), len: 0 }) }
    }
}

impl<V> Table<V> {
    fn read(&self) -> RwLockReadGuard<'_, Inner<V>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<V>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a relist of one namespace, or of everything; rows not put again before
    /// [`Self::finish_relist`] are dropped then.
    pub fn begin_relist(&self, namespace: Option<&str>) {
        let mut inner = self.write();
        let scope = |space: &str| namespace.is_none_or(|one| one == space);
        for (_, rows) in inner.rows.iter_mut().filter(|(space, _)| scope(space)) {
            for row in rows.values_mut() {
                row.seen = false;
            }
        }
    }

    /// Ends a relist of one namespace, or of everything; returns what was dropped.
    pub fn finish_relist(&self, namespace: Option<&str>) -> Vec<(Box<str>, Box<str>, V)> {
        let mut inner = self.write();
        let mut gone = Vec::new();
        let spaces: Vec<Box<str>> = match namespace {
            Some(one) => vec![one.into()],
            None => inner.rows.keys().cloned().collect(),
        };
        for space in spaces {
            let Some(rows) = inner.rows.get_mut(&space) else { continue };
            let dropped = rows.extract_if(|_, row| !row.seen);
            let before = gone.len();
            gone.extend(dropped.map(|(name, row)| (space.clone(), name, row.value)));
            let (dropped, empty) = (gone.len() - before, rows.is_empty());
            inner.len -= dropped;
            if empty {
                inner.rows.remove(&space);
            }
        }
        gone
    }

    /// Puts a row; returns the one it replaces.
    pub fn put(&self, namespace: &str, name: &str, value: V) -> Option<V> {
        self.put_if(namespace, name, value, |_, _| true)
    }

    /// As [`Self::put`], but keeps the old row when `wins(old, new)` is false.
    pub fn put_if(
        &self,
        namespace: &str,
        name: &str,
        value: V,
        wins: impl FnOnce(&V, &V) -> bool,
    ) -> Option<V> {
        let mut inner = self.write();
        if !inner.rows.contains_key(namespace) {
            inner.rows.insert(namespace.into(), HashMap::new());
        }
        let rows = inner.rows.get_mut(namespace)?;
        if let Some(row) = rows.get_mut(name) {
            row.seen = true;
            if !wins(&row.value, &value) {
                return None;
            }
            return Some(std::mem::replace(&mut row.value, value));
        }
        rows.insert(name.into(), Row { value, seen: true });
        inner.len += 1;
        None
    }

    /// Drops a row.
    pub fn remove(&self, namespace: &str, name: &str) -> Option<V> {
        let mut inner = self.write();
        let rows = inner.rows.get_mut(namespace)?;
        let row = rows.remove(name)?;
        let empty = rows.is_empty();
        if empty {
            inner.rows.remove(namespace);
        }
        inner.len -= 1;
        Some(row.value)
    }

    /// Reads a row under the lock; keep `read` cheap.
    pub fn with<R>(&self, namespace: &str, name: &str, read: impl FnOnce(&V) -> R) -> Option<R> {
        self.read().rows.get(namespace)?.get(name).map(|row| read(&row.value))
    }

    /// Whether there is such a row.
    pub fn contains(&self, namespace: &str, name: &str) -> bool {
        self.with(namespace, name, |_| ()).is_some()
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.read().len
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Collects something of every row; for rare walks only.
    pub fn collect<R>(&self, mut pick: impl FnMut(&str, &str, &V) -> Option<R>) -> Vec<R> {
        let inner = self.read();
        let all = inner.rows.iter().flat_map(|(ns, rows)| rows.iter().map(move |(n, r)| (ns, n, r)));
        all.filter_map(|(ns, name, row)| pick(ns, name, &row.value)).collect()
    }
}

impl<V: Clone> Table<V> {
    /// A clone of the row.
    pub fn get(&self, namespace: &str, name: &str) -> Option<V> {
        self.with(namespace, name, V::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relist_drops_what_it_did_not_see_and_never_empties_the_table() {
        let table = Table::default();
        table.put("a", "kept", 1);
        table.put("a", "gone", 2);
        table.put("b", "other", 3);
        table.begin_relist(Some("a"));
        table.put("a", "kept", 4);
        table.begin_relist(Some("b"));
        assert_eq!(table.get("a", "gone"), Some(2), "readable during the relist");
        let gone = table.finish_relist(Some("a"));
        assert_eq!(gone, [("a".into(), "gone".into(), 2)]);
        assert_eq!(table.get("b", "other"), Some(3), "another watch's namespace stays");
        assert_eq!((table.get("a", "kept"), table.len()), (Some(4), 2));
        table.begin_relist(None);
        assert_eq!(table.finish_relist(None).len(), 2);
        assert!(table.is_empty());
    }

    #[test]
    fn an_older_row_does_not_replace_a_newer_one() {
        let table = Table::default();
        table.put("a", "x", 5);
        table.put_if("a", "x", 3, |old, new| new >= old);
        assert_eq!(table.get("a", "x"), Some(5));
        assert_eq!(table.remove("a", "x"), Some(5));
        assert_eq!(table.len(), 0);
    }
}
