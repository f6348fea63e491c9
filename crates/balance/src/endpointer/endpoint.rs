use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use tokio_util::task::task_tracker::TaskTrackerToken;
use tower_sd_core::Instance;

use super::{EndpointStats, Readiness};

/// One instance with the service that sends to it.
//
// What a pick reads comes first, beside the count of its `Arc`.
#[repr(C)]
pub(crate) struct Endpoint<S> {
    pub(crate) stats: Arc<EndpointStats>,
    pub(crate) service: S,
    /// Its payload changes; its id and its address never do.
    instance: StdMutex<Instance>,
}

impl<S> Endpoint<S> {
    pub(crate) fn new(service: S, stats: Arc<EndpointStats>, instance: Instance) -> Self {
        Self { service, stats, instance: StdMutex::new(instance) }
    }

    pub(crate) fn instance(&self) -> Instance {
        self.instance.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// In hundredths: during a slow start a part of that of the instance.
    pub(crate) fn weight(&self) -> u64 {
        let weight = self.instance.lock().unwrap_or_else(PoisonError::into_inner).weight();
        u64::from(weight) * u64::from(self.stats.share())
    }

    pub(crate) fn set_payload(&self, instance: Instance) {
        let mut current = self.instance.lock().unwrap_or_else(PoisonError::into_inner);
        debug_assert!(current.same_address(&instance), "another address is another endpoint");
        *current = instance;
    }

    /// The strong count is one more; two endpoints share it while one replaces the other.
    pub(crate) fn in_flight(&self) -> usize {
        Arc::strong_count(&self.stats).saturating_sub(1)
    }

    pub(super) fn is(&self, readiness: Readiness) -> bool {
        self.stats.readiness() == readiness
    }
}

impl<S: Clone + Send + 'static> Endpoint<S> {
    /// Leaves the service to the requests in flight; without any it is dropped with the endpoint.
    pub(super) fn park(&self, token: TaskTrackerToken) {
        self.stats.park(self.service.clone(), token);
    }
}
