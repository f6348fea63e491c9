use std::{
    any::Any,
    fmt,
    sync::{
        PoisonError,
        atomic::{AtomicU64 as StdAtomicU64, Ordering::Relaxed},
    },
};

use tokio_util::task::task_tracker::TaskTrackerToken;
use tower_sd_core::InstanceId;

use super::{Outcome, outcome::N_COUNTED};
use crate::sync::{AtomicBool, AtomicU8, AtomicU64, Mutex, MutexGuard};

/// The record of one endpoint, kept across updates.
///
/// The strong count of its `Arc`, less the endpoint's own, is the number of requests in flight: a lease costs two atomic
/// operations, not four. What a pick touches comes first, beside that count: with 10 000 endpoints a cache line more is
/// what a pick costs. What follows is long enough that two counts never share a line.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Stats {
    picks: AtomicU64,
    /// Tells endpoints of one process apart; an instance that is made anew gets a new one.
    pub(crate) key: u64,
    readiness: AtomicU8,
    /// A request has no better endpoint, and waits for a probe of this one.
    wanted: AtomicBool,
    outcomes: [StdAtomicU64; N_COUNTED],
    pub(crate) id: InstanceId,
    parked: Mutex<Option<Parked>>,
}

/// Whether an endpoint takes requests; requests and the worker change it, the worker alone acts on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Readiness {
    Ready,
    /// A probe connects; nothing is known yet.
    Connecting,
    /// The last connection was refused, or did not come about in time.
    Down,
}

/// The service of an endpoint that drains: it is dropped with the last lease, because the leases own the [`Stats`].
struct Parked {
    service: Box<dyn Any + Send>,
    _token: TaskTrackerToken,
}

impl Stats {
    pub(crate) fn new(id: InstanceId) -> Self {
        Self {
            picks: AtomicU64::new(0),
            key: NEXT_KEY.fetch_add(1, Relaxed),
            readiness: AtomicU8::new(READY),
            wanted: AtomicBool::new(false),
            outcomes: [const { StdAtomicU64::new(0) }; N_COUNTED],
            id,
            parked: Mutex::new(None),
        }
    }

    #[inline]
    pub(crate) fn picked(&self) {
        self.picks.fetch_add(1, Relaxed);
    }

    pub(super) fn count(&self, outcome: Outcome) {
        if let Some(index) = outcome.index() {
            self.outcomes[index].fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn picks(&self) -> u64 {
        self.picks.load(Relaxed)
    }

    /// All but the successes, in the order of [`Outcome::index`].
    pub(super) fn outcomes(&self) -> [u64; N_COUNTED] {
        std::array::from_fn(|index| self.outcomes[index].load(Relaxed))
    }

    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.readiness.load(Relaxed) == READY
    }

    pub(crate) fn readiness(&self) -> Readiness {
        match self.readiness.load(Relaxed) {
            READY => Readiness::Ready,
            CONNECTING => Readiness::Connecting,
            _ => Readiness::Down,
        }
    }

    pub(crate) fn set_readiness(&self, readiness: Readiness) {
        self.readiness.store(code(readiness), Relaxed);
    }

    /// Leaves [`Readiness::Ready`]. Only the first caller gets `true`, and reports it to the worker.
    pub(crate) fn leave_ready(&self, to: Readiness) -> bool {
        self.readiness.compare_exchange(READY, code(to), Relaxed, Relaxed).is_ok()
    }

    /// Asks for a probe. Only the first caller until the probe's end gets `true`.
    pub(crate) fn want(&self) -> bool {
        !self.wanted.swap(true, Relaxed)
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed)
    }

    pub(super) fn probed(&self) {
        self.wanted.store(false, Relaxed);
    }

    pub(super) fn park<S: Send + 'static>(&self, service: S, token: TaskTrackerToken) {
        *self.parked() = Some(Parked { service: Box::new(service), _token: token });
    }

    /// Takes the service back from the requests in flight.
    pub(super) fn unpark<S: 'static>(&self) -> Option<S> {
        let parked = self.parked().take()?;
        parked.service.downcast().ok().map(|service| *service)
    }

    fn parked(&self) -> MutexGuard<'_, Option<Parked>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn code(readiness: Readiness) -> u8 {
    match readiness {
        Readiness::Ready => READY,
        Readiness::Connecting => CONNECTING,
        Readiness::Down => DOWN,
    }
}

impl fmt::Debug for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parked").finish_non_exhaustive()
    }
}

const READY: u8 = 0;
const CONNECTING: u8 = 1;
const DOWN: u8 = 2;
/// Only tells endpoints apart: nothing depends on where it stands.
static NEXT_KEY: StdAtomicU64 = StdAtomicU64::new(0);
