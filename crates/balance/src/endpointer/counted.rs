use std::sync::Arc;

use super::{EndpointStats, latency::Started};
use crate::outcome::Outcome;

/// The guard of a request that nothing but its response ends, and that nothing observes.
pub(crate) struct Counted {
    stats: Option<Arc<EndpointStats>>,
    started: Option<Started>,
}

impl Counted {
    #[inline]
    pub(crate) fn begin(stats: Arc<EndpointStats>, started: Option<Started>) -> Self {
        stats.picked();
        Self { stats: Some(stats), started }
    }

    #[inline]
    pub(crate) fn done(&mut self, outcome: Outcome) {
        if let Some(stats) = self.stats.take() {
            stats.ended(outcome);
            if let Some(started) = self.started {
                stats.measured(started, None, outcome);
            }
        }
    }
}

impl Drop for Counted {
    #[inline]
    fn drop(&mut self) {
        self.done(Outcome::Cancelled);
    }
}
