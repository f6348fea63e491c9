use std::{
    cell::Cell,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tower_sd_core::BoxError;

use super::{EndpointStats, ejection::Cause};
use crate::error::Failure;

/// The result of the active checks of one endpoint, which its factory reports.
///
/// An endpoint whose checks fail is ejected: it gets no requests while others are usable. It stays
/// in the set, and does not count towards the ejections that
/// [`EjectionPolicy`](crate::EjectionPolicy) allows. When all fail, requests go to all. Until the
/// first report it counts as well.
///
/// Whatever the number of balancers and clients above an endpointer, each endpoint has one. Two
/// endpointers check independently.
#[derive(Clone, Debug, Default)]
pub struct ActiveCheck(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Why it fails; `None` while it passes.
    failure: Option<Failure>,
    stats: Option<Weak<EndpointStats>>,
}

impl ActiveCheck {
    /// The one of the endpoint in creation.
    ///
    /// To be called while the factory runs, on its thread.
    pub fn begin() -> Self {
        let check = Self::default();
        BEGUN.with(|begun| begun.set(Some(check.clone())));
        check
    }

    /// Runs `create`, and what it has [begun](Self::begin).
    pub(super) fn collect<T>(create: impl FnOnce() -> T) -> (T, Option<Self>) {
        // Of a factory that has panicked, or of none.
        BEGUN.with(Cell::take);
        let created = create();
        (created, BEGUN.with(Cell::take))
    }

    /// The endpoint passes its checks.
    pub fn passes(&self) {
        self.set(None);
    }

    /// The endpoint fails its checks.
    pub fn fails(&self, why: impl Into<BoxError>) {
        self.set(Some(Failure::new(why.into())));
    }

    fn set(&self, failure: Option<Failure>) {
        let mut state = self.state();
        if state.failure.is_none() && failure.is_none() {
            return;
        }
        state.failure = failure;
        let (failure, stats) =
            (state.failure.clone(), state.stats.as_ref().and_then(Weak::upgrade));
        drop(state);
        if let Some(stats) = stats {
            stats.checked(failure);
        }
    }

    /// From now on it decides about that endpoint.
    pub(super) fn attach(&self, stats: &Arc<EndpointStats>) {
        let mut state = self.state();
        state.stats = Some(Arc::downgrade(stats));
        let failure = state.failure.clone();
        drop(state);
        stats.checked(failure);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EndpointStats {
    /// Its active checks fail, or pass.
    pub(super) fn checked(&self, failure: Option<Failure>) {
        let mut check = self.check.lock().unwrap_or_else(PoisonError::into_inner);
        if check.is_none() && failure.is_none() {
            return;
        }
        *check = failure;
        drop(check);
        self.report(Cause::Checks);
    }

    /// Why its active checks fail, while they do.
    pub(super) fn check_failure(&self) -> Option<Failure> {
        self.check.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

thread_local! {
    static BEGUN: Cell<Option<ActiveCheck>> = const { Cell::new(None) };
}
