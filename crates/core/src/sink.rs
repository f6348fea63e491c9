use std::future::Future;

use crate::{Error, ReadMode};

/// The receiver of the following loop's results.
///
/// For instances it is a [`Publisher`](crate::Publisher).
///
/// A call may panic: the loop logs the panic and continues with backoff.
pub trait Sink<T>: Send + 'static {
    /// Takes a complete set.
    fn set(&mut self, entries: Entries<T>);

    /// Takes a proof of life: the last set is current, as read by this mode.
    fn unchanged(&mut self, mode: ReadMode);

    /// Takes a failure: nothing was learned, and the last set may be outdated.
    fn failed(&mut self, error: Error);

    /// Takes note that everything is about to be read anew, without a failure.
    fn resync(&mut self, reason: &'static str) {
        let _ = reason;
    }

    /// The size of the largest set that it accepts. Defaults to [`usize::MAX`].
    fn max_entries(&self) -> usize {
        usize::MAX
    }

    /// Applies effects of passing time, and resolves when a confirming read is required.
    ///
    /// The loop repeats that read until one has succeeded by [`ReadMode::Confirm`].
    ///
    /// # Cancel safety
    ///
    /// Must be cancel safe: the loop drops the future and calls again.
    fn due(&mut self) -> impl Future<Output = ()> + Send;
}

/// One complete set, as it was read.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use]
pub struct Entries<T> {
    /// The decoded entries.
    pub items: Vec<T>,
    /// One error for each entry that could not be decoded.
    pub errors: Vec<Error>,
    /// The mode of the read.
    pub mode: ReadMode,
    /// Whether absences are accepted without the loss guard.
    ///
    /// See [`ReadResult::with_accepted_absences`](crate::ReadResult::with_accepted_absences).
    pub accepts_absences: bool,
}

impl<T> Entries<T> {
    /// Creates a set of well-formed entries, read by `Full`.
    pub fn new(items: Vec<T>) -> Self {
        Self { items, errors: Vec::new(), mode: ReadMode::Full, accepts_absences: false }
    }

    /// Sets the mode of the read.
    pub fn with_mode(self, mode: ReadMode) -> Self {
        Self { mode, ..self }
    }
}

impl<T> From<Vec<T>> for Entries<T> {
    fn from(items: Vec<T>) -> Self {
        Self::new(items)
    }
}

impl<T> FromIterator<T> for Entries<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self::new(items.into_iter().collect())
    }
}
