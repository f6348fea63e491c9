use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
    /// Entries of which the last value was kept because they could not be read, each time.
    pub kept: u64,
    /// Entries that could not be understood, each time one was read.
    pub malformed: u64,
    /// Entries that the address policy refused, each time one was read.
    pub refused: u64,
    /// Entries dropped because their id or address was there already, each time one was read.
    pub duplicates: u64,
    /// Reads that failed.
    pub errors: u64,
    /// Times that the loop read everything anew without a failure.
    pub resyncs: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    updates: AtomicU64,
    suppressed: AtomicU64,
    unhealthy: AtomicU64,
    kept: AtomicU64,
    malformed: AtomicU64,
    refused: AtomicU64,
    duplicates: AtomicU64,
    errors: AtomicU64,
    resyncs: AtomicU64,
}

impl Counters {
    pub(super) fn update(&self) {
        self.updates.fetch_add(1, Relaxed);
    }

    pub(super) fn suppressed(&self) {
        self.suppressed.fetch_add(1, Relaxed);
    }

    pub(super) fn unhealthy(&self, n: usize) {
        add(&self.unhealthy, n);
    }

    pub(super) fn kept(&self, n: usize) {
        add(&self.kept, n);
    }

    pub(super) fn malformed(&self, n: usize) {
        add(&self.malformed, n);
    }

    pub(super) fn refused(&self, n: usize) {
        add(&self.refused, n);
    }

    pub(super) fn duplicates(&self, n: usize) {
        add(&self.duplicates, n);
    }

    pub(super) fn error(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    pub(super) fn resync(&self) {
        self.resyncs.fetch_add(1, Relaxed);
    }

    pub(crate) fn read(&self) -> PublisherStats {
        PublisherStats {
            updates: self.updates.load(Relaxed),
            suppressed: self.suppressed.load(Relaxed),
            unhealthy: self.unhealthy.load(Relaxed),
            kept: self.kept.load(Relaxed),
            malformed: self.malformed.load(Relaxed),
            refused: self.refused.load(Relaxed),
            duplicates: self.duplicates.load(Relaxed),
            errors: self.errors.load(Relaxed),
            resyncs: self.resyncs.load(Relaxed),
        }
    }
}

fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Relaxed);
}
