use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Semaphore, watch};
use tower_sd_balance::{ActiveCheck, Instance, InstanceId};

/// The checks of all clones of one policy, by instance, with the number of its places.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Mutex<Places>>);

type Places = HashMap<Key, (usize, Arc<Checked>)>;

/// Another process at an address has another id, and checks of its own.
type Key = (InstanceId, String, u16);

/// What the endpoints of one instance share.
#[derive(Debug)]
pub(super) struct Checked {
    /// The endpoint that has it sends the checks for all.
    pub(super) turn: Semaphore,
    /// The last decision: why the instance fails. `None`: there is none yet.
    pub(super) decision: watch::Sender<Option<Result<(), String>>>,
}

/// One endpoint's part of it.
pub(super) struct Place {
    shared: Shared,
    key: Key,
    pub(super) checked: Arc<Checked>,
}

impl Shared {
    pub(super) fn place(&self, instance: &Instance) -> Place {
        let key = (instance.id().clone(), instance.host().to_owned(), instance.port());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (n_places, checked) = all.entry(key.clone()).or_default();
        *n_places += 1;
        Place { shared: self.clone(), key, checked: Arc::clone(checked) }
    }
}

impl Checked {
    /// Reports each decision to `health`.
    pub(super) async fn report(&self, health: &ActiveCheck) {
        let mut decisions = self.decision.subscribe();
        decisions.mark_changed();
        // Its sender is here.
        while decisions.changed().await.is_ok() {
            match decisions.borrow_and_update().clone() {
                None => {}
                Some(Ok(())) => health.passes(),
                Some(Err(why)) => health.fails(why),
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = all.entry(self.key.clone()) {
            entry.get_mut().0 -= 1;
            if entry.get().0 == 0 {
                entry.remove();
            }
        }
    }
}

impl Default for Checked {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), decision: watch::Sender::new(None) }
    }
}
