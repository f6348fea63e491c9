use std::{
    any::Any,
    sync::{Arc, PoisonError, Weak},
};

use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower_sd_core::Instance;

use super::{Endpoint, EndpointStats, Readiness};

/// An endpoint whose instance has left. Its requests in flight own what is left of it.
pub(super) struct Draining {
    pub(super) instance: Instance,
    pub(super) stats: Weak<EndpointStats>,
    /// `None`: without a bound.
    pub(super) until: Option<Instant>,
}

impl Draining {
    pub(super) fn new<S>(endpoint: &Endpoint<S>, until: Option<Instant>) -> Self {
        Self { instance: endpoint.instance(), stats: Arc::downgrade(&endpoint.stats), until }
    }

    /// The endpoint of an instance that returns, if it still drains and is at the same address.
    pub(super) fn give_back<S: 'static>(
        draining: &mut Vec<Self>,
        instance: &Instance,
    ) -> Option<Arc<Endpoint<S>>> {
        let at = draining.iter().position(|left| {
            left.instance.id() == instance.id() && left.instance.same_address(instance)
        })?;
        let stats = draining.swap_remove(at).stats.upgrade()?;
        let service = stats.unpark()?;
        stats.set_readiness(Readiness::Ready);
        Some(Arc::new(Endpoint::new(service, stats, instance.clone())))
    }

    /// Takes its service from the requests that are still in flight; their number.
    pub(super) fn give_up<S: 'static>(&self) -> usize {
        match self.stats.upgrade() {
            Some(stats) => {
                drop(stats.unpark::<S>());
                Arc::strong_count(&stats) - 1
            }
            None => 0,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.stats.strong_count()
    }
}

impl EndpointStats {
    /// Leaves a service to the requests in flight: it is dropped with the last guard, because
    /// guards own this.
    pub(super) fn park(&self, service: impl Any + Send, token: TaskTrackerToken) {
        let parked = Some((Box::new(service) as Box<_>, token));
        *self.parked.lock().unwrap_or_else(PoisonError::into_inner) = parked;
    }

    /// Takes the service back from the requests in flight.
    fn unpark<S: 'static>(&self) -> Option<S> {
        let (service, _token) =
            self.parked.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        service.downcast().ok().map(|service| *service)
    }
}
