//! What follows from the events.

use std::sync::Arc;

use tower_sd_core::InstanceId;

use crate::endpointer::{
    drain::Draining,
    endpoint::Endpoint,
    life::{EndpointState, Life},
    signal::{Make, Probe},
    stats::EndpointStats,
};

/// What has to follow from the events.
///
/// Dropped outside of the lock: it may own the last clone of a service.
#[must_use]
pub(crate) struct Effects<S> {
    /// The tiers have changed.
    pub(crate) publish: bool,
    /// Waiting requests have to look again.
    pub(crate) wake: bool,
    /// The registry may know more: an instance has just become unavailable.
    pub(crate) refresh: bool,
    pub(crate) make: Vec<Make>,
    pub(crate) probe: Vec<Probe<S>>,
    /// Runs and probes of these are of no use any more.
    pub(crate) stop: Vec<InstanceId>,
    pub(crate) gone: Vec<Arc<Endpoint<S>>>,
    pub(crate) replaced: Vec<Arc<Endpoint<S>>>,
    pub(crate) expired: Vec<Draining>,
    /// Services without a use.
    pub(crate) spare: Vec<S>,
    pub(crate) changes: Vec<Change>,
}

/// An endpoint has changed its state.
pub(crate) struct Change {
    pub(crate) stats: Arc<EndpointStats>,
    pub(crate) from: EndpointState,
    pub(crate) to: Life,
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
