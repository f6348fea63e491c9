use std::{collections::BTreeMap, sync::Arc};

use tower_sd_core::{ReadResult, Result};

use super::decode::Decode;
use crate::client::{Change, Position};

/// The state of a range of keys: a list, with all changes since.
pub(super) struct State<D: Decode> {
    decode: Arc<D>,
    /// The highest revision seen; a watch reports them in order.
    position: Position,
    entries: BTreeMap<Vec<u8>, Entry<D::Item>>,
}

struct Entry<T> {
    mod_revision: i64,
    item: Result<T>,
}

impl<D: Decode> State<D> {
    /// A list as it was at `position`.
    pub(super) fn new(
        decode: Arc<D>,
        position: Position,
        list: impl IntoIterator<Item = Change>,
    ) -> Self {
        let mut state = Self { decode, position, entries: BTreeMap::new() };
        for change in list {
            state.set(change);
        }
        state
    }

    /// Applies the changes that a watch reports, each once: several releases of etcd have repeated
    /// old ones. Returns whether the set is another one now.
    pub(super) fn apply(&mut self, changes: Vec<Change>) -> bool {
        let mut changed = false;
        for change in changes {
            let revision = change.mod_revision;
            let known = self.entries.get(&change.key);
            if revision < self.position.revision
                || known.is_some_and(|it| revision <= it.mod_revision)
            {
                continue;
            }
            self.position.revision = revision;
            changed |= known.is_some() || change.value.is_some();
            self.set(change);
        }
        changed
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it is the state of a store at `now`, with so many keys and this newest one.
    pub(super) fn is_at(&self, now: Position, n_keys: i64, newest: Option<&Change>) -> bool {
        let revision = newest.map_or(0, |it| it.mod_revision);
        self.position.lost_at(now).is_none()
            && usize::try_from(n_keys) == Ok(self.entries.len())
            && newest.is_none_or(|it| {
                self.entries.get(&it.key).is_some_and(|entry| entry.mod_revision == revision)
            })
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
