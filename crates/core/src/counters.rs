use std::sync::{Arc, Mutex, PoisonError};

/// What a [`Publisher`](crate::Publisher) has counted since it was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct PublisherStats {
    /// Changes of the set that were published.
    pub updates: u64,
    /// Losses that the guard held.
    pub suppressed: u64,
    /// Instances that were held because they were unhealthy, and still registered.
    pub unhealthy: u64,
    /// Entries that could not be read, and kept their last value, each time.
    pub kept: u64,
    /// Entries that could not be understood, each time one was read.
    pub malformed: u64,
    /// Entries that the address policy refused, each time one was read.
    pub refused: u64,
    /// Entries dropped for an id or address that was there already, each time.
    pub duplicates: u64,
    /// Reads that failed.
    pub errors: u64,
    /// Times that the loop read everything anew without a failure.
    pub resyncs: u64,
}

/// The counters of one publisher, which its subscriptions share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters(Arc<Mutex<PublisherStats>>);

impl Counters {
    pub(crate) fn add(&self, count: impl FnOnce(&mut PublisherStats) -> &mut u64, n: usize) {
        let mut stats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *count(&mut stats) += u64::try_from(n).unwrap_or(u64::MAX);
    }

    pub(crate) fn read(&self) -> PublisherStats {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
