//! The endpoints tried for one request: written by `Balance`, read by `Balance` and `Retry`.
//!
//! A task-local value, entered around every poll of the inner future, so that no request type is constrained. It does
//! not cross a `Buffer` or a spawned task between the two: below one, nothing is excluded. It is cleared around the
//! endpoint's own work, which may send requests of its own.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tower_sd_core::InstanceId;

use crate::NoInstances;

tokio::task_local! {
    static RECORD: Option<Arc<Record>>;
}

/// The endpoints that one request was sent to, in order, and whether it waits for one now.
#[derive(Debug)]
pub(crate) struct Record {
    /// Tells the requests of one process apart.
    pub(crate) id: u64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    tried: Vec<(u64, InstanceId)>,
    was_sent: bool,
    /// Why there is no endpoint yet, while one is searched.
    search: Option<Box<WhyNone>>,
}

pub(crate) type WhyNone = dyn Fn() -> NoInstances + Send + Sync;

impl Record {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { id: NEXT.fetch_add(1, Relaxed), inner: Mutex::default() })
    }

    /// An endpoint is searched from now on.
    pub(crate) fn search(&self, why_none: Box<WhyNone>) {
        self.inner().search = Some(why_none);
    }

    /// The search is over: the endpoint gets the request; how often it was sent, this time included.
    pub(crate) fn sent(&self, key: u64, id: &InstanceId) -> u32 {
        let mut inner = self.inner();
        inner.search = None;
        inner.was_sent = true;
        inner.tried.push((key, id.clone()));
        u32::try_from(inner.tried.len()).unwrap_or(u32::MAX)
    }

    /// The endpoint has found that nothing of the request was sent after all.
    pub(crate) fn not_sent(&self) {
        self.inner().was_sent = false;
    }

    /// Whether the endpoint that was tried last has got anything of the request.
    pub(crate) fn was_sent(&self) -> bool {
        self.inner().was_sent
    }

    pub(crate) fn contains(&self, key: u64) -> bool {
        self.inner().tried.iter().any(|(tried, _)| *tried == key)
    }

    pub(crate) fn len(&self) -> usize {
        self.inner().tried.len()
    }

    /// The last one that was added since there were `len`.
    pub(crate) fn last_since(&self, len: usize) -> Option<(u64, InstanceId)> {
        self.inner().tried.get(len..)?.last().cloned()
    }

    pub(crate) fn is_searching(&self) -> bool {
        self.inner().search.is_some()
    }

    /// Ends the search. `None`: there is none.
    pub(crate) fn give_up(&self) -> Option<NoInstances> {
        let search = self.inner().search.take();
        search.map(|why_none| why_none().of_request(Some(self.id)))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("tried", &self.tried).finish_non_exhaustive()
    }
}

/// Runs `f` inside the scope of `record`.
pub(crate) fn scope<T>(record: &Arc<Record>, f: impl FnOnce() -> T) -> T {
    RECORD.sync_scope(Some(Arc::clone(record)), f)
}

/// Runs `f`, the work of an endpoint, outside of any request's scope.
#[inline]
pub(crate) fn cleared<T>(is_scoped: bool, f: impl FnOnce() -> T) -> T {
    if is_scoped { RECORD.sync_scope(None, f) } else { f() }
}

/// The record of the scope that the caller is in.
#[inline]
pub(crate) fn current() -> Option<Arc<Record>> {
    RECORD.try_with(Option::clone).ok().flatten()
}

static NEXT: AtomicU64 = AtomicU64::new(0);
