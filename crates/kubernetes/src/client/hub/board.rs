//! Where the shared task leaves what it has read.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};
use tower_sd_core::Error;

use crate::client::{groups::View, slices::Slices};

/// The results of one run of the task.
#[derive(Debug, Default)]
pub(super) struct Board {
    services: Mutex<HashMap<String, watch::Sender<Shared>>>,
    /// The lists that followers have requested, by number.
    requested: Mutex<u64>,
    pub(super) wanted: Notify,
}

/// What the task has of one service.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared {
    /// Changes with each report.
    pub(super) n: u64,
    /// The request of a list that is the first one with all slices of the service.
    first: u64,
    /// The youngest request that such a list has answered; 0: there was none yet.
    pub(super) answered: u64,
    pub(super) slices: View,
    pub(super) error: Option<Error>,
}

impl Board {
    /// Requests a list that begins later than now.
    pub(super) fn request(&self) -> u64 {
        let mut requested = self.requested.lock().unwrap_or_else(PoisonError::into_inner);
        *requested += 1;
        self.wanted.notify_one();
        *requested
    }

    pub(super) fn last_request(&self) -> u64 {
        *self.requested.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a service, which exists while a follower has it.
    pub(super) fn subscribe(&self, service: &str) -> watch::Receiver<Shared> {
        let mut services = self.lock();
        services.retain(|_, place| place.receiver_count() > 0);
        let place = services.entry(service.to_owned()).or_insert_with(|| {
            // A list under way has dropped slices of a service that was not followed.
            let first = self.request();
            watch::Sender::new(Shared { first, ..Shared::default() })
        });
        place.subscribe()
    }

    /// Reports a list that answers this request and those before it.
    pub(super) fn listed(&self, slices: &Slices, request: u64) {
        self.report(None, |service, shared| {
            if request >= shared.first {
                (shared.answered, shared.slices) = (request, slices.of(service));
            }
            shared.error = None;
        });
    }

    /// Reports to the followers of all services, or of one.
    pub(super) fn report(&self, only: Option<&str>, change: impl Fn(&str, &mut Shared)) {
        let services = self.lock();
        let one = only.map(|only| services.get_key_value(only));
        let all = one.is_none().then_some(&*services);
        for (service, place) in one.flatten().into_iter().chain(all.into_iter().flatten()) {
            place.send_modify(|shared| {
                change(service, shared);
                shared.n += 1;
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Shared>>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
