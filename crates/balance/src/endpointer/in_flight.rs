use std::{cell::Cell, fmt, mem, sync::Arc};

use tokio::time::Instant;
use tower_sd_core::InstanceId;

use super::{
    EndpointStats, Tier,
    latency::Started,
    observer::{Event, Observers},
    probation::Probation,
};
use crate::{RequestScope, outcome::Outcome};

/// The guard of one request in flight at one endpoint: counts it, and its end.
///
/// A balancer releases it with the response. An endpoint whose responses stream
/// [takes](Self::take) it in `Service::call`, and releases it when the body has ended.
///
/// # Drop
///
/// The request is over. Without an outcome it was cancelled, or its time was over.
pub struct InFlight {
    /// `None`: its end was counted.
    stats: Option<Arc<EndpointStats>>,
    attempt: u32,
    trace: Trace,
    more: Option<Box<More>>,
}

/// What a pick leaves with its request.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// Its latency is measured.
    pub(crate) started: Option<Started>,
    /// It decides about the end of an ejection.
    pub(crate) probation: Option<Probation>,
}

/// What most requests have not: a deadline, and observers.
struct More {
    deadline: Option<Instant>,
    observers: Observers,
    started: Instant,
}

/// The guard of a request that nothing but its response ends, and that nothing observes.
pub(crate) struct Counted {
    stats: Option<Arc<EndpointStats>>,
    started: Option<Started>,
}

/// The instance that served a request.
///
/// HTTP and gRPC responses carry it in their extensions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Served {
    instance: InstanceId,
    attempts: u32,
}

/// How guards travel between a balancer and its endpoint, which have no type in common.
///
/// All of it is set and cleared around synchronous calls, on one thread.
struct Slot {
    /// For the endpoint that is called now.
    offered: Cell<Option<InFlight>>,
    /// The endpoint that is polled now gives back its guard when it drops it without an outcome.
    polled: Cell<Option<u64>>,
    returned: Cell<Option<InFlight>>,
    /// The endpoint whose request is dropped now because its time is over.
    timed_out: Cell<Option<u64>>,
    /// The endpoint that has just found that nothing was sent.
    not_sent: Cell<Option<u64>>,
    /// The endpoint that is created now takes its guards.
    enabled: Cell<bool>,
}

impl Trace {
    /// The tier of a request that has not waited.
    pub(crate) fn tier(&self) -> Tier {
        if self.probation.is_some() { Tier::Ejected } else { Tier::Ready }
    }
}

impl InFlight {
    /// The endpoint gets the request: from now on its end is counted.
    pub(crate) fn begin(
        stats: Arc<EndpointStats>,
        scope: Option<&RequestScope>,
        observers: &Observers,
        trace: Trace,
    ) -> Self {
        stats.picked();
        let attempt = scope.map_or(1, |scope| scope.sent(stats.key, &stats.id));
        let deadline = scope.and_then(RequestScope::deadline);
        let more = (deadline.is_some() || observers.watch_requests()).then(|| {
            let (observers, started) = (observers.clone(), Instant::now());
            Box::new(More { deadline, observers, started })
        });
        Self { stats: Some(stats), attempt, trace, more }
    }

    /// Declares that the endpoint in creation takes the guards of its requests.
    ///
    /// Called while the factory runs, by the constructor of the endpoint. Without it no guard is
    /// offered: that costs a call as much as the balancer's choice.
    pub fn enable() {
        SLOT.with(|slot| slot.enabled.set(true));
    }

    /// Runs `create`, and whether it has called [`enable`](Self::enable).
    pub(crate) fn enables<T>(create: impl FnOnce() -> T) -> (T, bool) {
        SLOT.with(|slot| with(&slot.enabled, false, create))
    }

    /// Takes the guard of the request that this thread is giving to an endpoint.
    ///
    /// To be called in `Service::call`, by an endpoint that has [enabled](Self::enable) it. `None`:
    /// there is no balancer above, or another service has taken it. A layer that calls the endpoint
    /// later, in a task of its own (`Buffer`), leaves the guard to the balancer, which releases it
    /// with the response.
    #[must_use]
    pub fn take() -> Option<Self> {
        SLOT.with(|slot| slot.offered.take())
    }

    /// The instance that the request went to.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.stats().id
    }

    /// How often the request was sent, this time included.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The moment at which the request is over, its response's body included.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.more.as_ref()?.deadline
    }

    /// The record of the endpoint.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "only its end takes it")]
    pub fn stats(&self) -> &EndpointStats {
        self.stats.as_ref().expect("only its end takes it")
    }

    #[cfg(test)]
    pub(super) fn shared_stats(&self) -> &Arc<EndpointStats> {
        self.stats.as_ref().expect("its end is not counted")
    }

    /// For the extensions of a response.
    #[must_use]
    pub fn served(&self) -> Served {
        Served { instance: self.instance().clone(), attempts: self.attempt() }
    }

    /// The head of the response has come: what follows is no longer its latency.
    ///
    /// An endpoint that has [taken](Self::take) the guard calls it before it passes the head on.
    pub fn responded(&mut self) {
        if let Some(started) = &mut self.trace.started {
            started.head.get_or_insert_with(|| started.at.elapsed());
        }
    }

    /// Releases it.
    pub fn done(mut self, outcome: Outcome) {
        if outcome == Outcome::NotSent {
            SLOT.with(|slot| slot.not_sent.set(Some(self.stats().key)));
        }
        self.end(outcome);
    }

    /// Calls an endpoint, which may take the guard; the guard when it has not.
    pub(crate) fn offer<T>(self, call: impl FnOnce() -> T) -> (T, Option<Self>) {
        SLOT.with(|slot| with(&slot.offered, Some(self), call))
    }

    /// Polls the endpoint that has taken its guard; the guard when it drops it without an outcome.
    pub(crate) fn watch<T>(key: u64, poll: impl FnOnce() -> T) -> (T, Option<Self>) {
        SLOT.with(|slot| {
            let watched = || with(&slot.polled, Some(key), poll).0;
            with(&slot.returned, None, watched)
        })
    }

    /// Drops the request at the endpoint with this key because its time is over.
    pub(crate) fn time_out<T>(key: Option<u64>, drop: impl FnOnce() -> T) -> T {
        SLOT.with(|slot| with(&slot.timed_out, key, drop).0)
    }

    /// Whether the endpoint with this key has just found that nothing was sent.
    pub(crate) fn was_not_sent(key: u64) -> bool {
        SLOT.with(|slot| slot.not_sent.take()) == Some(key)
    }

    fn end(&mut self, outcome: Outcome) {
        let Some(stats) = self.stats.take() else {
            return;
        };
        stats.ended(outcome);
        let Trace { started, probation } = mem::take(&mut self.trace);
        if let Some(started) = started {
            stats.measured(&started, outcome);
        }
        if let Some(probation) = probation {
            probation.end(outcome);
        }
        if let Some(More { observers, started, .. }) = self.more.take().map(|more| *more) {
            let latency = started.elapsed();
            observers.on(&Event::Ended { endpoint: &stats, outcome, latency });
        }
    }
}

impl Counted {
    pub(crate) const NOTHING: Self = Self { stats: None, started: None };

    #[inline]
    pub(crate) fn begin(stats: Arc<EndpointStats>, started: Option<Started>) -> Self {
        stats.picked();
        Self { stats: Some(stats), started }
    }

    #[inline]
    pub(crate) fn is_counted(&self) -> bool {
        self.stats.is_some()
    }

    #[inline]
    pub(crate) fn done(&mut self, outcome: Outcome) {
        if let Some(stats) = self.stats.take() {
            stats.ended(outcome);
            if let Some(started) = &self.started {
                stats.measured(started, outcome);
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

impl Served {
    /// The instance.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// How often the request was sent; 1 without a [`Retry`](crate::Retry).
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Some(key) = self.stats.as_ref().map(|stats| stats.key) else {
            return;
        };
        // A thread that ends has no slot any more.
        let outcome = SLOT.try_with(|slot| {
            if slot.timed_out.get() == Some(key) {
                return Some(Outcome::TimedOut);
            }
            if slot.polled.get() != Some(key) {
                return Some(Outcome::Cancelled);
            }
            let (stats, trace) = (self.stats.take(), mem::take(&mut self.trace));
            let more = self.more.take();
            let returned = Self { stats, attempt: self.attempt, trace, more };
            slot.polled.set(None);
            drop(slot.returned.replace(Some(returned)));
            None
        });
        if let Some(outcome) = outcome.unwrap_or(Some(Outcome::Cancelled)) {
            self.end(outcome);
        }
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InFlight").field(self.instance()).finish()
    }
}

/// Runs `f` with `value` in `cell`, and with what `f` leaves there. The value of an outer call
/// returns, after a panic too.
fn with<T: Default, R>(cell: &Cell<T>, value: T, f: impl FnOnce() -> R) -> (R, T) {
    let _outer = Restore(cell, cell.replace(value));
    let result = f();
    (result, cell.take())
}

struct Restore<'a, T: Default>(&'a Cell<T>, T);

impl<T: Default> Drop for Restore<'_, T> {
    fn drop(&mut self) {
        drop(self.0.replace(mem::take(&mut self.1)));
    }
}

thread_local! {
    static SLOT: Slot = const {
        Slot {
            offered: Cell::new(None),
            polled: Cell::new(None),
            returned: Cell::new(None),
            timed_out: Cell::new(None),
            not_sent: Cell::new(None),
            enabled: Cell::new(false),
        }
    };
}
