use std::{
    cell::Cell,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tower_sd_core::BoxError;

use super::{EndpointStats, checked::Checked, ejection::Cause};
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
    has_reported: bool,
    /// And the number of its service.
    stats: Option<(Weak<EndpointStats>, u64)>,
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
        state.has_reported = true;
        if state.failure.is_none() && failure.is_none() {
            return;
        }
        state.failure = failure;
        if let Some((stats, service)) = &state.stats
            && let Some(stats) = stats.upgrade()
        {
            stats.checked(*service, state.failure.clone());
        }
    }

    /// From now on `check` decides about that endpoint, and that of an earlier service does not.
    ///
    /// A service that is made anew is out for as long as the one before, until it passes.
    pub(super) fn attach(check: Option<Self>, stats: &Arc<EndpointStats>) {
        let (service, failure) = stats.check().begin();
        let Some(check) = check else {
            return stats.checked(service, None);
        };
        let mut state = check.state();
        // It may have passed since.
        if !state.has_reported {
            state.failure = failure;
        }
        state.stats = Some((Arc::downgrade(stats), service));
        stats.checked(service, state.failure.clone());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EndpointStats {
    /// The active checks of a service fail, or pass.
    fn checked(&self, service: u64, failure: Option<Failure>) {
        if self.check().set(service, failure) {
            self.report(Cause::Checks);
        }
    }

    /// Why its active checks fail, while they do.
    pub(super) fn check_failure(&self) -> Option<Failure> {
        self.check().failure()
    }

    fn check(&self) -> MutexGuard<'_, Checked> {
        self.check.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    static BEGUN: Cell<Option<ActiveCheck>> = const { Cell::new(None) };
}

#[cfg(test)]
mod tests {
    use tower_sd_core::Instance;

    use super::*;

    /// The checks of a service may be faster than its factory.
    #[test]
    fn report_before_the_service_is_in_use_counts() {
        let id = Instance::new("a", 1).id().clone();
        let stats = Arc::new(EndpointStats::new(id, false, Arc::default()));
        let new = |report: fn(&ActiveCheck)| {
            let check = ActiveCheck::default();
            report(&check);
            ActiveCheck::attach(Some(check), &stats);
            stats.check_failure().is_some()
        };
        assert!(new(|check| check.fails("ill")));
        assert!(new(|_| ()), "it is out for as long as the one before");
        assert!(!new(ActiveCheck::passes));
        assert!(!new(|_| ()));
    }
}
