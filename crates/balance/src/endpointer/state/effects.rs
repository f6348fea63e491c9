//! What follows from the events.

use std::sync::Arc;

use tower_sd_core::InstanceId;

use crate::endpointer::{
    Endpoint, EndpointState, EndpointStats,
    drain::Draining,
    life::Life,
    signal::{Make, Probe},
};

/// What has to follow from the events.
///
/// Dropped outside of the lock: it may own the last clone of a service.
#[must_use]
pub(in crate::endpointer) struct Effects<S> {
    /// The tiers have changed.
    pub(in crate::endpointer) publish: bool,
    /// Waiting requests have to look again.
    pub(in crate::endpointer) wake: bool,
    /// The registry may know more: an instance has just become unavailable.
    pub(in crate::endpointer) refresh: bool,
    pub(in crate::endpointer) make: Vec<Make>,
    pub(in crate::endpointer) probe: Vec<Probe<S>>,
    /// Runs and probes of these are of no use any more.
    pub(in crate::endpointer) stop: Vec<InstanceId>,
    pub(in crate::endpointer) gone: Vec<Arc<Endpoint<S>>>,
    pub(in crate::endpointer) replaced: Vec<Arc<Endpoint<S>>>,
    pub(in crate::endpointer) expired: Vec<Draining>,
    /// Services without a use.
    pub(in crate::endpointer) spare: Vec<S>,
    pub(in crate::endpointer) changes: Vec<Change>,
}

/// An endpoint has changed its state.
pub(in crate::endpointer) struct Change {
    pub(in crate::endpointer) stats: Arc<EndpointStats>,
    pub(in crate::endpointer) from: EndpointState,
    pub(in crate::endpointer) to: Life,
}

impl<S> Default for Effects<S> {
    fn default() -> Self {
        Self {
            publish: false,
            wake: false,
            refresh: false,
            make: Vec::new(),
            probe: Vec::new(),
            stop: Vec::new(),
            gone: Vec::new(),
            replaced: Vec::new(),
            expired: Vec::new(),
            spare: Vec::new(),
            changes: Vec::new(),
        }
    }
}
