use std::sync::{Arc, Weak};

use tokio::time::Instant;
use tower_sd_core::Instance;

use super::{Endpoint, Set, Stats};

/// The endpoints that can be picked, best first. `Clone` is a few `Arc`s.
#[derive(Debug)]
pub(crate) struct Tiers<S> {
    /// Listed by the registry, and not known to be down.
    pub(crate) ready: Set<S>,
    /// No longer listed, kept by the loss guard.
    pub(crate) held: Arc<Vec<Arc<Endpoint<S>>>>,
    /// Listed, and the last connection was refused.
    pub(crate) down: Arc<Vec<Arc<Endpoint<S>>>>,
}

/// An endpoint whose instance has left. Its requests in flight own what is left of it.
#[derive(Debug)]
pub(super) struct Draining {
    pub(super) instance: Instance,
    pub(super) stats: Weak<Stats>,
    pub(super) until: Instant,
}

impl Draining {
    pub(super) fn new<S>(endpoint: &Endpoint<S>, until: Instant) -> Self {
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
        Some(Arc::new(Endpoint::resumed(service, stats, instance.clone())))
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

impl<S> Clone for Tiers<S> {
    fn clone(&self) -> Self {
        Self {
            ready: self.ready.clone(),
            held: Arc::clone(&self.held),
            down: Arc::clone(&self.down),
        }
    }
}

impl<S> Default for Tiers<S> {
    fn default() -> Self {
        Self { ready: Set::default(), held: Arc::default(), down: Arc::default() }
    }
}
