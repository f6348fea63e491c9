use std::{collections::BTreeMap, sync::Arc};

use tower_sd_core::{Error, ErrorKind, Instance, Reading, Result};

use crate::{Codec, client::Change, error::BACKEND, key::Range};

/// What is known of a service's keys: a list, and what has happened since.
pub(super) struct Known {
    range: Range,
    codecs: Vec<Arc<dyn Codec>>,
    /// The highest revision seen; a watch speaks of them in order.
    revision: i64,
    entries: BTreeMap<Vec<u8>, Entry>,
}

struct Entry {
    mod_revision: i64,
    instance: Result<Instance>,
}

impl Known {
    /// A list of `range` as it was at `revision`.
    pub(super) fn new(
        range: Range,
        codecs: Vec<Arc<dyn Codec>>,
        revision: i64,
        list: impl IntoIterator<Item = Change>,
    ) -> Self {
        let mut known = Self { range, codecs, revision, entries: BTreeMap::new() };
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

    pub(super) fn reading(&self) -> Reading {
        Reading::set(self.entries.values().map(|it| it.instance.clone()).collect())
    }

    fn set(&mut self, change: Change) {
        let Change { key, mod_revision, value, .. } = change;
        match value {
            Some(value) => {
                let instance = self.decode(&self.range.id_of(&key), &value);
                self.entries.insert(key, Entry { mod_revision, instance });
            }
            None => {
                self.entries.remove(&key);
            }
        }
    }

    /// The first codec that understands it; the error is the first codec's, which is the one that writes.
    fn decode(&self, id: &str, value: &[u8]) -> Result<Instance> {
        let mut first = None;
        for codec in &self.codecs {
            match codec.decode(id, value) {
                Ok(instance) => return Ok(instance),
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
        }
        let error = Error::new(ErrorKind::Protocol, BACKEND, "decode").with_instance(id.into());
        Err(match first {
            Some(cause) => error.with_source(cause),
            None => error,
        })
    }
}

#[cfg(test)]
mod tests;
