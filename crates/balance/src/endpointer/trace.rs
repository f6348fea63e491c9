use std::{
    mem,
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
};

use super::{EndpointStats, Tier, latency::Started};
use crate::{Outcome, limits::Ticket};

/// What a pick leaves with its request.
#[derive(Debug)]
pub(crate) struct Trace {
    /// That of the endpoint.
    pub(crate) tier: Tier,
    /// Its latency is measured.
    pub(crate) started: Option<Started>,
    /// It decides about the end of an ejection.
    pub(crate) probation: Option<Probation>,
    /// It has a place at its endpoint.
    pub(crate) place: Option<Place>,
    /// Its number is limited.
    pub(crate) held: Option<Box<Held>>,
}

impl Trace {
    pub(crate) fn of(tier: Tier) -> Self {
        Self { tier, started: None, probation: None, place: None, held: None }
    }
}

/// The right of one request to decide about the end of an ejection.
///
/// Dropped before the endpoint has the request, it goes to another one.
//
// Weak: the strong count is the number of requests in flight.
#[derive(Debug)]
pub(crate) struct Probation(Weak<EndpointStats>);

impl Probation {
    /// Only one caller gets it.
    pub(crate) fn take(stats: &Arc<EndpointStats>) -> Option<Self> {
        stats.take_probation().then(|| Self(Arc::downgrade(stats)))
    }

    /// The request has ended.
    #[cold]
    pub(super) fn end(mut self, outcome: Outcome) {
        if let Some(stats) = mem::take(&mut self.0).upgrade() {
            stats.decide(outcome);
        }
    }
}

impl Drop for Probation {
    fn drop(&mut self) {
        if let Some(stats) = self.0.upgrade() {
            stats.decide_later();
        }
    }
}

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
}

/// The endpoint takes no more requests.
#[derive(Debug)]
pub(crate) struct Full;

impl Place {
    /// `None`: the requests of the endpoint are not bounded.
    pub(crate) fn take(stats: &Arc<EndpointStats>) -> Result<Option<Self>, Full> {
        match stats.judge.breaker.has_places() {
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
            stats.judge.breaker.free();
        }
    }
}

impl EndpointStats {
    /// Whether it has as many requests as it may have.
    pub(crate) fn is_full(&self) -> bool {
        self.judge.breaker.is_full(self.n_places.load(Relaxed))
    }

    /// `false`: it is full.
    fn take_place(&self) -> bool {
        let more = |n| (!self.judge.breaker.is_full(n)).then_some(n + 1);
        self.n_places.fetch_update(Relaxed, Relaxed, more).is_ok()
    }
}
