use std::{cell::Cell, fmt, sync::Arc};

use tower_sd_core::InstanceId;

use super::{Outcome, Stats};

/// Counts one request in flight at one endpoint, for as long as it lives, and then its [`Outcome`].
///
/// A balancer releases it with the response. An endpoint whose responses stream [takes](Self::take) it in
/// `Service::call`, and releases it when the body has ended.
///
/// # Drop
///
/// The request is over. Without an outcome it was cancelled, or its time was over.
pub struct InFlight {
    stats: Arc<Stats>,
    fate: Fate,
}

/// The number of the attempt and the outcome, in one scalar: a lease of two travels in registers. One of three is
/// copied through memory several times a request, which costs three times a pick.
#[derive(Clone, Copy)]
struct Fate(u64);

/// The instance that served a request: HTTP and gRPC responses carry it in their extensions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Served {
    instance: InstanceId,
    attempts: u32,
}

/// How leases travel between a balancer and its endpoint, which know nothing of each other's types.
///
/// All of it is set and cleared around synchronous calls, on one thread.
struct Slot {
    /// The endpoint that is polled now gives back its lease when it drops it without an outcome.
    polled: Cell<Option<u64>>,
    returned: Cell<Option<InFlight>>,
    /// The endpoint whose request is dropped now because its time is over.
    timed_out: Cell<Option<u64>>,
    /// The endpoint that has just found that nothing was sent.
    not_sent: Cell<Option<u64>>,
}

impl InFlight {
    #[inline]
    pub(crate) fn new(stats: &Arc<Stats>) -> Self {
        Self { stats: Arc::clone(stats), fate: Fate::new(1, Outcome::Success) }
    }

    /// The lease of the request that this thread gives to an endpoint just now; to be called in `Service::call`.
    ///
    /// `None`: there is no balancer above, or another service has taken it. A layer that calls the endpoint later, in a
    /// task of its own (`Buffer`), leaves it to the balancer, which releases it with the response.
    #[must_use]
    pub fn take() -> Option<Self> {
        OFFERED.take()
    }

    /// The instance that the request went to.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.stats.id
    }

    /// How often the request was sent, this time included.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.fate.attempt()
    }

    /// For the extensions of a response.
    #[must_use]
    pub fn served(&self) -> Served {
        Served { instance: self.instance().clone(), attempts: self.attempt() }
    }

    /// Releases it.
    #[inline]
    pub fn done(mut self, outcome: Outcome) {
        self.fate = Fate::new(self.fate.attempt(), outcome);
    }

    #[inline]
    pub(crate) fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// The endpoint gets the request: from now on its end is counted.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.stats.picked();
        self.fate = Fate::new(self.fate.attempt(), Outcome::Cancelled);
    }

    #[inline]
    pub(crate) fn set_attempt(&mut self, attempt: u32) {
        self.fate = Fate::new(attempt, self.fate.outcome());
    }

    /// Whether its endpoint has other requests in flight.
    pub(crate) fn is_shared(&self) -> bool {
        // One is the endpoint's own.
        Arc::strong_count(&self.stats) > 2
    }

    /// Calls an endpoint, which may take the lease; the lease when it has not.
    #[inline(always)]
    pub(crate) fn offer<T>(self, call: impl FnOnce() -> T) -> (T, Option<Self>) {
        let before = Before(OFFERED.replace(Some(self)));
        let called = call();
        let left = OFFERED.take();
        drop(before);
        (called, left)
    }

    /// Polls the endpoint that has taken its lease; the lease when it has dropped it without an outcome.
    pub(crate) fn watch<T>(key: u64, poll: impl FnOnce() -> T) -> (T, Option<Self>) {
        SLOT.with(|slot| {
            let before = slot.polled.replace(Some(key));
            let polled = poll();
            slot.polled.set(before);
            (polled, slot.returned.take())
        })
    }

    /// Drops the request at the endpoint with this key because its time is over.
    pub(crate) fn time_out<T>(key: Option<u64>, drop: impl FnOnce() -> T) -> T {
        SLOT.with(|slot| {
            let before = slot.timed_out.replace(key);
            let dropped = drop();
            slot.timed_out.set(before);
            dropped
        })
    }

    /// Whether the endpoint with this key has just found that nothing was sent.
    pub(crate) fn was_not_sent(key: u64) -> bool {
        SLOT.with(|slot| slot.not_sent.take()) == Some(key)
    }

    #[cold]
    fn settle(&self) {
        // A thread that ends has no slot any more.
        let outcome = SLOT.try_with(|slot| {
            let key = Some(self.stats.key);
            match self.fate.outcome() {
                Outcome::Cancelled if slot.timed_out.get() == key => Some(Outcome::TimedOut),
                Outcome::Cancelled if slot.polled.get() == key => {
                    let returned = Self { stats: Arc::clone(&self.stats), fate: self.fate };
                    slot.polled.set(None);
                    slot.returned.replace(Some(returned));
                    None
                }
                Outcome::NotSent => {
                    slot.not_sent.set(key);
                    Some(Outcome::NotSent)
                }
                outcome => Some(outcome),
            }
        });
        if let Some(outcome) = outcome.unwrap_or_else(|_gone| Some(self.fate.outcome())) {
            self.stats.count(outcome);
        }
    }
}

impl Fate {
    #[inline]
    fn new(attempt: u32, outcome: Outcome) -> Self {
        Self(u64::from(attempt) << u8::BITS | u64::from(outcome.code()))
    }

    #[inline]
    fn attempt(self) -> u32 {
        u32::try_from(self.0 >> u8::BITS).unwrap_or(u32::MAX)
    }

    #[inline]
    fn outcome(self) -> Outcome {
        let [code, ..] = self.0.to_le_bytes();
        Outcome::of_code(code)
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
    #[inline]
    fn drop(&mut self) {
        if self.fate.outcome() != Outcome::Success {
            self.settle();
        }
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(self.instance()).finish()
    }
}

/// Puts back the offer of an outer call, whether the inner one returns or panics.
struct Before(Option<InFlight>);

impl Drop for Before {
    #[inline]
    fn drop(&mut self) {
        if self.0.is_some() || std::thread::panicking() {
            OFFERED.set(self.0.take());
        }
    }
}

thread_local! {
    /// For the endpoint that is called now.
    static OFFERED: Cell<Option<InFlight>> = const { Cell::new(None) };
    static SLOT: Slot = const {
        Slot {
            polled: Cell::new(None),
            returned: Cell::new(None),
            timed_out: Cell::new(None),
            not_sent: Cell::new(None),
        }
    };
}
