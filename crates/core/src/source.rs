use std::time::Duration;

use async_trait::async_trait;

use crate::{Error, Instance, Result};

/// The reading half of a backend: answers the requests of the following loop.
///
/// # Contract
///
/// - Every set is complete, never a difference. An authoritative "no entries" is an empty set, not
///   an error.
/// - A set has one element per entry of the registry. An entry that cannot be decoded must be an
///   `Err` in its place, and should name its instance ([`Error::with_instance`]): after a transient
///   error the last value of that entry is kept, a permanent one drops it. A set of nothing but
///   errors is an error.
/// - An unhealthy, draining or idle entry should be part of the set, with its status and weight:
///   the loss guard counts the entries which accept requests, and a filter belongs above the
///   source.
/// - An error means that nothing was learned. The loop keeps the set, marks it stale and retries
///   with backoff, not earlier than [`Error::retry_after`].
/// - A source that reads in pages must stop, with an error, at more than
///   [`ReadRequest::max_entries`] entries.
/// - Errors must not contain secrets.
/// - A read may hang: the loop bounds a `Full` or `Confirm` read by
///   [`FollowConfig::read_timeout`](crate::FollowConfig::read_timeout), and a `Changed` read by
///   [`FollowConfig::max_silence`](crate::FollowConfig::max_silence) and the periodic resync.
/// - A read may panic: the loop logs the panic and treats it as an error.
///
/// # Cancel safety
///
/// The loop may drop the future at any await (shutdown, resync, confirm, nudge) and send another
/// request later. A blocking call to the registry must end with the future. A position (index,
/// stream, watch) may survive the drop, but no change may be lost with it.
#[async_trait]
pub trait Source: Send + 'static {
    /// One entry: [`Instance`] for services, [`KeyValue`](crate::KeyValue) for watched
    /// configuration.
    type Item: Send + 'static;

    /// Reads the set as requested.
    ///
    /// # Errors
    ///
    /// The reason why the set could not be read.
    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult<Self::Item>>;
}

#[async_trait]
impl<S: Source + ?Sized> Source for Box<S> {
    type Item = S::Item;

    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult<Self::Item>> {
        (**self).read(request).await
    }
}

/// A request of the following loop to its [`Source`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ReadRequest {
    /// How to read.
    pub mode: ReadMode,
    /// A larger set will be refused. Defaults to [`usize::MAX`].
    pub max_entries: usize,
}

/// How a [`Source`] must read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ReadMode {
    /// The complete set, now.
    ///
    /// First, after every `Err` and every [`resync`](ReadResult::resync), and periodically: the
    /// source must drop indexes, streams and watches and start anew.
    Full,
    /// The complete set, as soon as it may differ from the last result.
    ///
    /// A spurious return is allowed: the loop limits the rate and compares the content. Not sent to
    /// a source whose last result has [`refresh_in`](ReadResult::refresh_in).
    Changed,
    /// The complete set, now, by the strongest read of the registry.
    ///
    /// Consistent, linearizable, no cache, no index. Sent before a loss is accepted, and repeated
    /// until one such read has succeeded. A healthy watch may be kept.
    Confirm,
    /// Whether the last result is current, now: an endpoint refuses connections, or the source was
    /// silent for long.
    ///
    /// A source with a live watch must keep it, and should verify it by a cheap call and return
    /// [`ReadResult::unchanged`], or the set that the call returned. Another source reads as for
    /// `Full`.
    Verify,
}

/// The result of a successful [`Source::read`].
#[derive(Debug)]
#[must_use]
pub struct ReadResult<T = Instance> {
    pub(crate) outcome: Outcome<T>,
    pub(crate) refresh_in: Option<Duration>,
    pub(crate) accepts_absences: bool,
}

#[derive(Debug)]
pub(crate) enum Outcome<T> {
    Set(Vec<Result<T>>),
    Unchanged,
    Trouble(Error),
    Resync(&'static str),
}

impl ReadRequest {
    /// Creates a request without a bound on entries: for tests of a source.
    pub fn new(mode: ReadMode) -> Self {
        Self { mode, max_entries: usize::MAX }
    }

    /// Whether the source should wait for a change.
    pub fn waits(&self) -> bool {
        self.mode == ReadMode::Changed
    }
}

impl<T> ReadResult<T> {
    /// The complete set, one element per entry of the registry.
    pub fn set(entries: Vec<Result<T>>) -> Self {
        Outcome::Set(entries).into()
    }

    /// Proof of life: the set of the last result is current.
    ///
    /// The source keeps its position. In answer to `Confirm` it confirms the last set.
    pub fn unchanged() -> Self {
        Outcome::Unchanged.into()
    }

    /// The set may be outdated, but the position is kept.
    ///
    /// `Changed` is requested next, with backoff. The source should then wait for the end of the
    /// trouble: `Verify` and the periodic `Full` are put off meanwhile, by a minute at least with
    /// the default settings.
    pub fn trouble(error: Error) -> Self {
        Outcome::Trouble(error).into()
    }

    /// The position was lost: compaction, an index that went back.
    ///
    /// `Full` is requested next. Not an error, the set stays fresh; several of these without a set
    /// in between are an error. `reason` is for the log.
    pub fn resync(reason: &'static str) -> Self {
        Outcome::Resync(reason).into()
    }

    /// Makes a set, or `unchanged`, one of a polled source.
    ///
    /// `Full` is requested next, after this long: for example a DNS TTL. The loop clamps it to
    /// [`FollowConfig::min_refresh`](crate::FollowConfig::min_refresh) and
    /// [`max_refresh`](crate::FollowConfig::max_refresh), and adds jitter.
    pub fn refresh_in(self, after: Duration) -> Self {
        Self { refresh_in: Some(after), ..self }
    }

    /// Marks a set whose absences are the registry's explicit word.
    ///
    /// An object of the registry lists the members of the service, and no longer these: it was not
    /// lost, and they are removed immediately, without the loss guard. An instance that is listed
    /// with a status or weight which accepts no requests stays the guard's affair. So does the
    /// first set after trouble.
    pub fn with_accepted_absences(self) -> Self {
        Self { accepts_absences: true, ..self }
    }

    /// Returns the entries of a set, `None` for another result.
    pub fn entries(&self) -> Option<&[Result<T>]> {
        match &self.outcome {
            Outcome::Set(entries) => Some(entries),
            _ => None,
        }
    }
}

impl<T> From<Outcome<T>> for ReadResult<T> {
    fn from(outcome: Outcome<T>) -> Self {
        Self { outcome, refresh_in: None, accepts_absences: false }
    }
}
