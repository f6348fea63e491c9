use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{Error, ErrorKind, Instance, InstanceId, Result};

/// The registry's entries, and the readers that wait for a change.
#[derive(Debug, Default)]
pub(super) struct Store {
    state: Mutex<State>,
    changes: watch::Sender<()>,
    pub(super) n_calls: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) services: BTreeMap<String, BTreeMap<InstanceId, Entry>>,
    pub(super) interrupted: bool,
    pub(super) empty: bool,
    pub(super) delay: Duration,
    /// No entry expires before: a lower bound, since renewals do not lower it, which spares looking
    /// at all of them.
    expiry: Option<Instant>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) instance: Instance,
    /// Of the registration that has written it.
    pub(super) incarnation: String,
    pub(super) expires_at: Instant,
    pub(super) corrupt: bool,
}

impl Store {
    /// The start of every call: takes its time, and fails while the registry is interrupted.
    pub(super) async fn call(&self, operation: &'static str) -> Result<()> {
        self.n_calls.fetch_add(1, Relaxed);
        let (start, mut changes) = (Instant::now(), self.changes());
        loop {
            // Read again at every change: the end of the fault is the end of the calls that it
            // holds.
            let until = start + self.lock().delay;
            if Instant::now() >= until {
                break;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep_until(until) => {}
            }
        }
        self.available(operation)
    }

    pub(super) fn available(&self, operation: &'static str) -> Result<()> {
        match self.lock().interrupted {
            true => Err(Error::new(ErrorKind::Unavailable, "memory", operation)),
            false => Ok(()),
        }
    }

    pub(super) fn edit(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changes.send_replace(());
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Waits until something may have changed: an edit, or a TTL that ends.
    pub(super) async fn changed(&self, changes: &mut watch::Receiver<()>) {
        let next_expiry = self.lock().expiry;
        let expiry = async {
            match next_expiry {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The sender is in `self`.
            _ = changes.changed() => {}
            () = expiry => {}
        }
    }

    /// The state as of now: what has expired is gone.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.expire(Instant::now());
        state
    }
}

impl State {
    pub(super) fn remove(&mut self, service: &str, id: &InstanceId) {
        if let Some(entries) = self.services.get_mut(service) {
            entries.remove(id);
        }
    }

    pub(super) fn entries(&self, service: &str) -> impl Iterator<Item = &Entry> {
        self.services.get(service).into_iter().flat_map(BTreeMap::values)
    }

    pub(super) fn get_mut(&mut self, service: &str, id: &InstanceId) -> Option<&mut Entry> {
        self.services.get_mut(service)?.get_mut(id)
    }

    pub(super) fn insert(&mut self, service: String, entry: Entry) {
        self.expiry = Some(self.expiry.map_or(entry.expires_at, |at| at.min(entry.expires_at)));
        let entries = self.services.entry(service).or_default();
        entries.insert(entry.instance.id().clone(), entry);
    }

    fn expire(&mut self, now: Instant) {
        if self.expiry.is_none_or(|at| at > now) {
            return;
        }
        for entries in self.services.values_mut() {
            entries.retain(|_, entry| entry.expires_at > now);
        }
        let entries = self.services.values().flat_map(BTreeMap::values);
        self.expiry = entries.map(|entry| entry.expires_at).min();
    }
}
