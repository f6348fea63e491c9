//! What has been tried for one request: written by the balancer, read by it and by what repeats requests above it.
//!
//! It is a task-local value, entered around every poll of the inner future, so that it asks nothing of the request's
//! type. It does not cross a `Buffer` or a spawned task between the two: below one, nothing is excluded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tower_sd_core::InstanceId;

tokio::task_local! {
    static RECORD: Arc<Record>;
}

/// The endpoints that one request was sent to, in order.
#[derive(Debug, Default)]
pub(crate) struct Record(Mutex<Vec<(u64, InstanceId)>>);

impl Record {
    pub(crate) fn push(&self, key: u64, id: &InstanceId) {
        self.entries().push((key, id.clone()));
    }

    pub(crate) fn contains(&self, key: u64) -> bool {
        self.entries().iter().any(|(tried, _)| *tried == key)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries().len()
    }

    /// The last one that was added since there were `len`.
    pub(crate) fn last_since(&self, len: usize) -> Option<InstanceId> {
        self.entries().get(len..)?.last().map(|(_, id)| id.clone())
    }

    fn entries(&self) -> MutexGuard<'_, Vec<(u64, InstanceId)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `f` inside the scope of `record`.
pub(crate) fn scope<T>(record: &Arc<Record>, f: impl FnOnce() -> T) -> T {
    RECORD.sync_scope(Arc::clone(record), f)
}

/// The record of the scope that the caller is in.
#[inline]
pub(crate) fn current() -> Option<Arc<Record>> {
    RECORD.try_with(Arc::clone).ok()
}
