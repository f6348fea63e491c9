use std::sync::{Arc, Weak};

use tokio::time::Instant;
use tower_sd_core::Instance;

use super::{Endpoint, EndpointStats, Readiness};

/// An endpoint whose instance has left. Its requests in flight own what is left of it.
#[derive(Debug)]
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
        let service = stats.parking.unpark()?;
        stats.set_readiness(Readiness::Ready);
        Some(Arc::new(Endpoint::with_stats(service, stats, instance.clone())))
    }

    /// Takes its service from the requests that are still in flight; their number.
    pub(super) fn give_up<S: 'static>(&self) -> usize {
        match self.stats.upgrade() {
            Some(stats) => {
                drop(stats.parking.unpark::<S>());
                Arc::strong_count(&stats) - 1
            }
            None => 0,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.stats.strong_count()
    }
}
