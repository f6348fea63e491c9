use std::{collections::BTreeMap, sync::Arc};

use tower_sd_core::{ReadResult, Result};

use super::Decode;
use crate::client::Change;

/// What is known of a range of keys: a list, and what has happened since.
pub(super) struct Known<D: Decode> {
    decode: Arc<D>,
    /// The highest revision seen; a watch speaks of them in order.
    revision: i64,
    entries: BTreeMap<Vec<u8>, Entry<D::Item>>,
}

struct Entry<T> {
    mod_revision: i64,
    item: Result<T>,
}

impl<D: Decode> Known<D> {
    /// A list as it was at `revision`.
    pub(super) fn new(
        decode: Arc<D>,
        revision: i64,
        list: impl IntoIterator<Item = Change>,
    ) -> Self {
        let mut known = Self { decode, revision, entries: BTreeMap::new() };
        for change in list {
            known.set(change);
        }
        known
    }

    /// Applies what a watch says, each change once: several releases of etcd have repeated old ones. Says whether the set
    /// is another one now.
    pub(super) fn apply(&mut self, changes: Vec<Change>) -> bool {
        let mut changed = false;
        for change in changes {
            let revision = change.mod_revision;
            let known = self.entries.get(&change.key);
            if revision < self.revision || known.is_some_and(|it| revision <= it.mod_revision) {
                continue;
            }
            self.revision = revision;
            changed |= known.is_some() || change.value.is_some();
            self.set(change);
        }
        changed
    }

    pub(super) fn reading(&self) -> ReadResult<D::Item> {
        ReadResult::set(self.entries.values().map(|it| it.item.clone()).collect())
    }

    fn set(&mut self, change: Change) {
        let Change { key, mod_revision, value, .. } = change;
        match value {
            Some(value) => {
                let item = self.decode.decode(&key, &value, mod_revision);
                self.entries.insert(key, Entry { mod_revision, item });
            }
            None => {
                self.entries.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
