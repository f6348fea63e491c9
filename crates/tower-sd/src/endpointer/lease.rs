use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use tower_sd_core::InstanceId;

/// Counts one request in flight at one endpoint, for as long as it lives.
///
/// # Drop
///
/// The request is over. Nothing else is recorded: a request that was cancelled says nothing about its instance.
pub struct Lease(Arc<Stats>);

/// What is known of one endpoint across updates.
///
/// The strong count of its `Arc`, less the endpoint's own, is the number of requests in flight: a lease costs two atomic
/// operations, not four.
#[derive(Debug)]
pub(crate) struct Stats {
    /// Tells endpoints of one process apart; an instance that is made anew gets a new one.
    pub(crate) key: u64,
    pub(crate) id: InstanceId,
    pub(crate) down: AtomicBool,
    pub(crate) picks: AtomicU64,
    pub(crate) failures: AtomicU64,
}

impl Lease {
    pub(crate) fn new(stats: &Arc<Stats>) -> Self {
        Self(Arc::clone(stats))
    }

    /// The instance that the request went to.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.0.id
    }

    /// Counts the request as failed.
    pub fn failed(&self) {
        self.0.failures.fetch_add(1, Relaxed);
    }

    pub(crate) fn stats(&self) -> &Arc<Stats> {
        &self.0
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(self.instance()).finish()
    }
}
