use std::sync::{Arc, Weak};

use super::EndpointStats;
use crate::Outcome;

/// The right of one request to decide about the end of an ejection.
///
/// Dropped before the endpoint has the request, it goes to another one.
//
// Weak: the strong count is the number of requests in flight.
#[derive(Debug)]
pub(crate) struct Probation(Option<Weak<EndpointStats>>);

impl Probation {
    /// Only one caller gets it.
    pub(crate) fn take(stats: &Arc<EndpointStats>) -> Option<Self> {
        stats.take_probation().then(|| Self(Some(Arc::downgrade(stats))))
    }

    /// The request has ended.
    #[cold]
    pub(super) fn end(mut self, outcome: Outcome) {
        if let Some(stats) = self.0.take().and_then(|stats| stats.upgrade()) {
            stats.decide(outcome);
        }
    }
}

impl Drop for Probation {
    fn drop(&mut self) {
        if let Some(stats) = self.0.take().and_then(|stats| stats.upgrade()) {
            stats.decide_later();
        }
    }
}
