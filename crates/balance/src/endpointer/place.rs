use std::sync::{Arc, Weak, atomic::Ordering::Relaxed};

use super::{EndpointStats, limits::Ticket};

/// A request at an endpoint whose number is bounded.
//
// Weak: the strong count is the number of requests in flight.
#[derive(Debug)]
pub(crate) struct Place(Weak<EndpointStats>);

/// What a request holds by the limits, until its end.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) tickets: Vec<Ticket>,
    /// While it waits.
    pub(crate) waits: Option<Ticket>,
    /// Others wait for a place already.
    pub(crate) is_behind: bool,
    pub(crate) place: Option<Place>,
}

/// The endpoint takes no more requests.
#[derive(Debug)]
pub(crate) struct Full;

impl Place {
    /// `None`: the requests of the endpoint are not bounded.
    pub(crate) fn take(stats: &Arc<EndpointStats>) -> Result<Option<Self>, Full> {
        match stats.breaker().has_places() {
            false => Ok(None),
            true if stats.take_place() => Ok(Some(Self(Arc::downgrade(stats)))),
            true => Err(Full),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(stats) = self.0.upgrade() {
            stats.n_places.fetch_sub(1, Relaxed);
            stats.breaker().free();
        }
    }
}

impl EndpointStats {
    /// Whether it has as many requests as it may have.
    pub(crate) fn is_full(&self) -> bool {
        self.breaker().is_full(self.n_places.load(Relaxed))
    }

    /// `false`: it is full.
    fn take_place(&self) -> bool {
        let more = |n| (!self.breaker().is_full(n)).then_some(n + 1);
        self.n_places.fetch_update(Relaxed, Relaxed, more).is_ok()
    }
}
