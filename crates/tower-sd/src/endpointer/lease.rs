use std::{fmt, sync::Arc};

use tower_sd_core::InstanceId;

use super::Stats;

/// Counts one request in flight at one endpoint, for as long as it lives.
///
/// # Drop
///
/// The request is over. Nothing else is recorded: a request that was cancelled says nothing about its instance.
pub struct Lease(Arc<Stats>);

impl Lease {
    #[inline]
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
        self.0.failed();
    }

    #[inline]
    pub(crate) fn stats(&self) -> &Arc<Stats> {
        &self.0
    }

    /// Whether its endpoint has other requests in flight.
    pub(crate) fn is_shared(&self) -> bool {
        // One is the endpoint's own.
        Arc::strong_count(&self.0) > 2
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(self.instance()).finish()
    }
}
