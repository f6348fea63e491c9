use std::{
    cell::Cell,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tower_sd_core::{BoxError, InstanceId};

use super::ejection::{Cause, Judge, Verdict};
use crate::{error::Failure, restore::with};

/// The result of the active checks of one endpoint, which its factory reports.
///
/// An endpoint whose checks fail is ejected: it gets no requests while others are usable. It stays
/// in the set, and does not count towards the ejections that
/// [`EjectionPolicy`](crate::EjectionPolicy) allows. When all fail, requests go to all. Until the
/// first report it counts as well.
///
/// Whatever the number of balancers and clients above an endpointer, each endpoint has one.
#[derive(Clone, Debug, Default)]
pub struct ActiveCheck(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Why it fails; `None` while it passes.
    failure: Option<Failure>,
    has_reported: bool,
    /// What its endpoint reports to, and its key.
    judge: Option<(Arc<Judge>, InstanceId, u64)>,
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
        BEGUN.with(|begun| with(begun, None, create))
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
        let before = mem::replace(&mut state.failure, failure);
        if (before.is_some() || state.failure.is_some())
            && let Some((judge, id, key)) = &state.judge
        {
            judge.report(Verdict { id: id.clone(), key: *key, cause: Cause::Checks });
        }
    }

    /// It decides about an endpoint from now on, which has failed by the check `before` it.
    ///
    /// A service that is made anew is out for as long as the one before, until it passes.
    pub(super) fn attach(&self, before: Option<Failure>, judge: (Arc<Judge>, InstanceId, u64)) {
        let mut state = self.state();
        // It may have passed since.
        if !state.has_reported {
            state.failure = before;
        }
        state.judge = Some(judge);
    }

    /// Why it fails, while it does.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.state().failure.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    static BEGUN: Cell<Option<ActiveCheck>> = const { Cell::new(None) };
}

#[cfg(test)]
mod tests {
    use tower_sd_core::Instance;

    use super::*;
    use crate::EndpointStats;

    /// The checks of a service may be faster than its factory.
    #[test]
    fn report_before_the_service_is_in_use_counts() {
        let id = Instance::new("a", 1).id().clone();
        let stats = EndpointStats::new(id, false, Arc::default());
        let new = |report: fn(&ActiveCheck)| {
            let check = ActiveCheck::default();
            report(&check);
            stats.attach(Some(check));
            stats.check_failure().is_some()
        };
        assert!(new(|check| check.fails("ill")));
        assert!(new(|_| ()), "it is out for as long as the one before");
        assert!(!new(ActiveCheck::passes));
        assert!(!new(|_| ()));
    }
}
