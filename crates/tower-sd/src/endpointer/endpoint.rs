use std::{
    any::Any,
    fmt,
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicU64 as StdAtomicU64, Ordering::Relaxed},
    },
};

use tokio_util::task::task_tracker::TaskTrackerToken;
use tower_sd_core::{Instance, InstanceId};

use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard};

/// One instance with the service that speaks to it.
pub(crate) struct Endpoint<S> {
    pub(crate) service: S,
    pub(crate) stats: Arc<Stats>,
    /// Its payload changes; its id and its address never do.
    instance: StdMutex<Instance>,
}

/// What is known of one endpoint across updates.
///
/// The strong count of its `Arc`, less the endpoint's own, is the number of requests in flight: a lease costs two atomic
/// operations, not four. What a pick writes comes first, beside that count: with 10 000 endpoints a cache line more is
/// what a pick costs. What follows is long enough that two counts never share a line.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Stats {
    picks: AtomicU64,
    /// Tells endpoints of one process apart; an instance that is made anew gets a new one.
    pub(crate) key: u64,
    /// Its connection was refused, and it has not connected since.
    pub(crate) down: AtomicBool,
    failures: AtomicU64,
    pub(crate) id: InstanceId,
    parked: Mutex<Option<Parked>>,
}

/// The service of an endpoint that drains: it is dropped with the last lease, because the leases own the [`Stats`].
struct Parked {
    service: Box<dyn Any + Send>,
    _token: TaskTrackerToken,
}

impl<S> Endpoint<S> {
    pub(crate) fn new(service: S, instance: Instance) -> Self {
        let stats = Stats {
            key: NEXT_KEY.fetch_add(1, Relaxed),
            id: instance.id().clone(),
            down: AtomicBool::new(false),
            picks: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            parked: Mutex::new(None),
        };
        Self { service, stats: Arc::new(stats), instance: StdMutex::new(instance) }
    }

    /// One that had left and comes back with its service and its statistics.
    pub(crate) fn resumed(service: S, stats: Arc<Stats>, instance: Instance) -> Self {
        stats.down.store(false, Relaxed);
        Self { service, stats, instance: StdMutex::new(instance) }
    }

    pub(crate) fn instance(&self) -> Instance {
        self.instance.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_payload(&self, instance: Instance) {
        let mut current = self.instance.lock().unwrap_or_else(PoisonError::into_inner);
        debug_assert!(current.same_address(&instance), "another address is another endpoint");
        *current = instance;
    }

    pub(crate) fn in_flight(&self) -> usize {
        Arc::strong_count(&self.stats).saturating_sub(1)
    }
}

impl<S: Clone + Send + 'static> Endpoint<S> {
    /// Leaves the service to the requests in flight; without any it is dropped at once.
    pub(crate) fn park(&self, token: TaskTrackerToken) {
        let parked = Parked { service: Box::new(self.service.clone()), _token: token };
        *self.stats.parked() = Some(parked);
    }
}

impl Stats {
    #[inline]
    pub(crate) fn picked(&self) {
        self.picks.fetch_add(1, Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    pub(crate) fn picks(&self) -> u64 {
        self.picks.load(Relaxed)
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Relaxed)
    }

    /// Takes the service back from the requests in flight.
    pub(crate) fn unpark<S: 'static>(&self) -> Option<S> {
        let parked = self.parked().take()?;
        parked.service.downcast().ok().map(|service| *service)
    }

    fn parked(&self) -> MutexGuard<'_, Option<Parked>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> fmt::Debug for Endpoint<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("instance", &self.instance())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parked").finish_non_exhaustive()
    }
}

/// Only tells endpoints apart: nothing depends on where it stands.
static NEXT_KEY: StdAtomicU64 = StdAtomicU64::new(0);
