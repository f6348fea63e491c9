use std::{cell::Cell, fmt, sync::Arc, time::Duration};

use tokio::time::Instant;
use tower_sd_core::InstanceId;

use super::{
    EndpointStats,
    observer::{Event, Observers},
    trace::Trace,
};
use crate::{CallerDeadline, RequestScope, outcome::Outcome, restore::with};

/// The guard of one request in flight at one endpoint: counts it, and its end.
///
/// A balancer releases it with the response. An endpoint whose responses stream
/// [takes](Self::take) it in `Service::call`, and releases it when the body has ended.
///
/// # Drop
///
/// The request is over. Without an outcome it was cancelled, or its time was over.
//
// A pointer, because it goes through several hands.
pub struct InFlight(
    /// `None`: its end was counted.
    Option<Box<Guard>>,
);

struct Guard {
    stats: Arc<EndpointStats>,
    attempt: u32,
    trace: Trace,
    /// The latency up to the head of the response, once that has come.
    head: Option<Duration>,
    more: Option<More>,
}

/// What most requests have not: a deadline, and observers.
struct More {
    deadline: Option<Instant>,
    head_deadline: Option<Instant>,
    caller: Option<CallerDeadline>,
    observers: Option<Observers>,
    started: Instant,
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
    /// What the endpoint that is polled now has dropped.
    returned: Cell<Option<InFlight>>,
}

/// What is read and set at each poll, apart from what has a destructor: that costs more.
struct Marks {
    /// The endpoint that is polled now gives back its guard when it drops it without an outcome.
    polled: Cell<Option<u64>>,
    /// It has given it back.
    has_returned: Cell<bool>,
    /// The endpoint whose request is dropped now because its time is over.
    timed_out: Cell<Option<u64>>,
    /// The endpoint that has just found that nothing was sent.
    not_sent: Cell<Option<u64>>,
    /// The endpoint that is created now takes its guards.
    enabled: Cell<bool>,
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
        let is_bounded = scope.is_some_and(RequestScope::is_bounded);
        let is_watched = observers.watch_requests();
        let more = (is_bounded || is_watched).then(|| {
            let (observers, started) = (is_watched.then(|| observers.clone()), Instant::now());
            let head_deadline = scope.and_then(|scope| scope.attempt_deadline(started));
            let caller = scope.and_then(RequestScope::caller);
            More { deadline, head_deadline, caller, observers, started }
        });
        Self(Some(Box::new(Guard { stats, attempt, trace, head: None, more })))
    }

    /// Declares that the endpoint in creation takes the guards of its requests.
    ///
    /// Called while the factory runs, by the constructor of the endpoint. Without it no guard is
    /// offered: that costs a call as much as the balancer's choice.
    pub fn enable() {
        MARKS.with(|marks| marks.enabled.set(true));
    }

    /// Runs `create`, and whether it has called [`enable`](Self::enable).
    pub(crate) fn enables<T>(create: impl FnOnce() -> T) -> (T, bool) {
        MARKS.with(|marks| with(&marks.enabled, false, create))
    }

    /// Takes the guard of the request that this thread is giving to an endpoint.
    ///
    /// To be called in `Service::call`, by an endpoint that has [enabled](Self::enable) it. `None`:
    /// there is no balancer above, or another service has taken it. A layer that calls the endpoint
    /// later, in a task of its own (`Buffer`), leaves the guard to the balancer, which releases it
    /// with the response.
    pub fn take() -> Option<Self> {
        SLOT.with(|slot| slot.offered.take())
    }

    /// The instance that the request went to.
    pub fn instance(&self) -> &InstanceId {
        &self.stats().id
    }

    /// How often the request was sent, this time included.
    pub fn attempt(&self) -> u32 {
        self.guard().attempt
    }

    /// The moment at which the request is over, its response's body included.
    pub fn deadline(&self) -> Option<Instant> {
        self.guard().more.as_ref()?.deadline
    }

    /// The moment by which the head of the response must have come.
    ///
    /// An endpoint carries what is left of it to its server.
    pub fn head_deadline(&self) -> Option<Instant> {
        self.guard().more.as_ref()?.head_deadline
    }

    /// The deadline of the request that the caller of this client is serving.
    ///
    /// It is part of the two others. When its time is over, that is the caller's haste, and no
    /// fault of the instance: [`Outcome::Cancelled`].
    pub fn caller(&self) -> Option<CallerDeadline> {
        self.guard().more.as_ref()?.caller
    }

    /// The record of the endpoint.
    pub fn stats(&self) -> &EndpointStats {
        &self.guard().stats
    }

    #[cfg(test)]
    pub(super) fn shared_stats(&self) -> &Arc<EndpointStats> {
        &self.guard().stats
    }

    fn guard(&self) -> &Guard {
        self.0.as_ref().expect("only its end takes it")
    }

    /// For the extensions of a response.
    pub fn served(&self) -> Served {
        Served { instance: self.instance().clone(), attempts: self.attempt() }
    }

    /// The head of the response has come: what follows is no longer its latency.
    ///
    /// An endpoint that has [taken](Self::take) the guard calls it before it passes the head on.
    pub fn responded(&mut self) {
        if let Some(Guard { stats, trace, head, .. }) = self.0.as_deref_mut()
            && let Some(started) = trace.started
        {
            head.get_or_insert_with(|| started.elapsed(stats.age(Instant::now())));
        }
    }

    /// The response reports an error of the caller's: its latency does not count.
    ///
    /// An endpoint that has [taken](Self::take) the guard calls it before [`done`](Self::done).
    pub fn unmeasured(&mut self) {
        if let Some(guard) = &mut self.0 {
            guard.trace.started = None;
        }
    }

    /// The instance has rejected the request, because there are too many.
    ///
    /// It appears slower by a tenth, up to 1 s.
    ///
    /// Called as [`unmeasured`](Self::unmeasured) is. The instance has the fewest requests in
    /// flight then, and would get all others.
    pub fn rejected(&mut self) {
        if let Some(Guard { stats, trace, .. }) = self.0.as_deref_mut()
            && trace.started.take().is_some()
        {
            stats.latency.raise(stats.age(Instant::now()));
        }
    }

    /// Releases it.
    pub fn done(self, outcome: Outcome) {
        self.end(outcome, outcome == Outcome::NotSent);
    }

    /// Releases it: nothing was sent, and that is no failure.
    ///
    /// The instance has closed its connection as it may. [`Outcome::NotSent`] counts as a failure
    /// in a row.
    pub fn not_taken(self) {
        self.end(Outcome::Cancelled, true);
    }

    fn end(mut self, outcome: Outcome, is_not_sent: bool) {
        if is_not_sent {
            MARKS.with(|marks| marks.not_sent.set(Some(self.stats().key)));
        }
        if let Some(guard) = self.0.take() {
            guard.end(outcome);
        }
    }

    /// Calls an endpoint, which may take the guard; the guard when it has not.
    pub(crate) fn offer<T>(self, call: impl FnOnce() -> T) -> (T, Option<Self>) {
        SLOT.with(|slot| with(&slot.offered, Some(self), call))
    }

    /// Polls the endpoint that has taken its guard; the guard when it drops it without an outcome.
    #[inline]
    pub(crate) fn watch<T>(key: u64, poll: impl FnOnce() -> T) -> (T, Option<Self>) {
        MARKS.with(|marks| {
            let _outer = Watch::begin(key, marks);
            let polled = poll();
            let returned = match marks.has_returned.get() {
                true => SLOT.with(|slot| slot.returned.take()),
                false => None,
            };
            (polled, returned)
        })
    }

    /// Drops the request at the endpoint with this key because its time is over.
    pub(crate) fn time_out<T>(key: Option<u64>, drop: impl FnOnce() -> T) -> T {
        MARKS.with(|marks| with(&marks.timed_out, key, drop).0)
    }

    /// Whether the endpoint with this key has just found that nothing was sent.
    #[inline]
    pub(crate) fn was_not_sent(key: u64) -> bool {
        MARKS.with(|marks| marks.not_sent.take()) == Some(key)
    }
}

impl Guard {
    fn end(self, outcome: Outcome) {
        let Self { stats, trace, head, more, .. } = self;
        let Trace { started, probation, place, held, .. } = trace;
        stats.ended(outcome);
        // Before an observer that may panic, and while the endpoint is there.
        drop((place, held));
        if let Some(started) = started {
            stats.measured(started, head, outcome);
        }
        if let Some(probation) = probation {
            probation.end(outcome);
        }
        if let Some(More { observers: Some(observers), started, .. }) = more {
            let latency = started.elapsed();
            observers.on(&Event::Ended { endpoint: &stats, outcome, latency });
        }
    }
}

impl Served {
    /// The instance.
    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// How often the request was sent; 1 without a [`Retry`](crate::Retry).
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Some(guard) = self.0.take() else {
            return;
        };
        let key = guard.stats.key;
        let outcome = MARKS.with(|marks| match marks.polled.get() {
            _ if marks.timed_out.get() == Some(key) => Some(Outcome::TimedOut),
            Some(polled) if polled == key => None,
            Some(_) | None => Some(Outcome::Cancelled),
        });
        if let Some(outcome) = outcome {
            return guard.end(outcome);
        }
        // Only a thread that ends has no slot any more, and it polls nothing.
        let _is_gone = SLOT.try_with(|slot| {
            MARKS.with(|marks| {
                marks.polled.set(None);
                marks.has_returned.set(true);
            });
            drop(slot.returned.replace(Some(Self(Some(guard)))));
        });
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InFlight").field(self.instance()).finish()
    }
}

/// Restores the marks of an outer poll, and what its endpoint has returned.
struct Watch<'a> {
    marks: &'a Marks,
    polled: Option<u64>,
    returned: Option<InFlight>,
}

impl<'a> Watch<'a> {
    #[inline]
    fn begin(key: u64, marks: &'a Marks) -> Self {
        let returned = match marks.has_returned.replace(false) {
            true => SLOT.with(|slot| slot.returned.take()),
            false => None,
        };
        Self { marks, polled: marks.polled.replace(Some(key)), returned }
    }
}

impl Drop for Watch<'_> {
    #[inline]
    fn drop(&mut self) {
        self.marks.polled.set(self.polled);
        // After a panic what it has returned is still there.
        if self.marks.has_returned.replace(self.returned.is_some()) || self.returned.is_some() {
            SLOT.with(|slot| drop(slot.returned.replace(self.returned.take())));
        }
    }
}

thread_local! {
    static SLOT: Slot = const { Slot { offered: Cell::new(None), returned: Cell::new(None) } };
    static MARKS: Marks = const {
        Marks {
            polled: Cell::new(None),
            has_returned: Cell::new(false),
            timed_out: Cell::new(None),
            not_sent: Cell::new(None),
            enabled: Cell::new(false),
        }
    };
}
