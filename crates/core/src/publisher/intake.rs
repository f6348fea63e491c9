//! What of an answer becomes a part of the set.

use std::{collections::HashSet, mem};

use super::Publisher;
use crate::{Error, ErrorKind, Instance};

impl Publisher {
    /// Drops what the address policy refuses. `Err`: it refuses everything, or there is too much of
    /// it.
    pub(super) fn admit(&mut self, mut entries: Vec<Instance>) -> Result<Vec<Instance>, Error> {
        let (total, max) = (entries.len(), self.config.max_instances);
        if total > max {
            return Err(self.error(format!(
                "{total} instances, more than max_instances = {max}; raise it if that is right"
            )));
        }
        let (mut last, mut places) = (None, 0..);
        entries.retain(|instance| {
            if places.next().is_some_and(|place| self.listing.is_known(place, instance)) {
                return true;
            }
            let checked = self.config.addresses.check(instance);
            let admitted = checked.is_ok();
            last = checked.err().or_else(|| last.take());
            admitted
        });
        let refused = total - entries.len();
        self.counters.add(|stats| &mut stats.refused, refused);
        let is_news = is_news(&mut self.listing.n_refused, refused);
        match last {
            Some(refused) if entries.is_empty() => {
                Err(self.error(format!("all {total} instances refused: {refused}")))
            }
            Some(last) if is_news => {
                tracing::warn!(backend = self.backend, service = self.service, refused, %last, "addresses refused");
                Ok(entries)
            }
            _ => Ok(entries),
        }
    }

    /// Adds the last value of each entry that could not be read now.
    pub(super) fn with_unread(&self, mut items: Vec<Instance>, errors: &[Error]) -> Vec<Instance> {
        // A malformed entry will not become well-formed by itself.
        let unread = errors.iter().filter(|e| e.is_transient() && e.kind() != ErrorKind::Protocol);
        let unread: HashSet<_> = unread.filter_map(Error::instance).collect();
        if !unread.is_empty() {
            let read: HashSet<_> = items.iter().map(Instance::id).collect();
            let last = unread.difference(&read).filter_map(|id| self.listing.get(id));
            let last: Vec<_> = last.cloned().collect();
            self.counters.add(|stats| &mut stats.kept, last.len());
            items.extend(last);
        }
        items
    }

    pub(super) fn duplicates(&mut self, n_duplicates: usize) {
        self.counters.add(|stats| &mut stats.duplicates, n_duplicates);
        if is_news(&mut self.listing.n_duplicates, n_duplicates) {
            let (backend, service) = (self.backend, &self.service);
            tracing::warn!(backend, service, n_duplicates, "duplicate entries dropped");
        }
    }

    pub(super) fn malformed(&mut self, errors: &[Error]) {
        let n_malformed = errors.len();
        self.counters.add(|stats| &mut stats.malformed, n_malformed);
        let is_news = is_news(&mut self.listing.n_malformed, n_malformed);
        if let Some(error) = errors.first()
            && is_news
        {
            tracing::warn!(backend = self.backend, service = self.service, n_malformed, error = %error.chain(), "malformed entries skipped");
        }
    }
}

/// Notes how often a fault has occurred; whether that is to be logged.
fn is_news(known: &mut usize, n: usize) -> bool {
    mem::replace(known, n) != n && n > 0
}
