use std::time::Duration;

use async_trait::async_trait;

use crate::{Error, Instance, Result};

/// The reading half of a backend's wire: what the following loop asks of it.
///
/// # Contract
///
/// - `read(Read::Full)` comes first, and after every `Err`. It answers at once with the complete set: forget indexes,
///   streams and watches and start anew.
/// - `read(Read::Changed)` waits until the set may differ from the last `Ok`, and answers with the complete set again,
///   never with a difference. A spurious return is allowed (the loop limits its rate and compares content). It is not
///   asked of a source that returned [`Reading::Set`] with `refresh_in`.
/// - `read(Read::Confirm)` is as `Full`, by the strongest read that the registry has (consistent, linearizable, no
///   cache, no index): the loss guard asks before it believes a loss.
/// - One element per entry of the registry: an entry that cannot be understood is an `Err` in its place. The loop counts
///   and skips it, and treats a set of nothing but `Err` as an error.
/// - An error means that nothing was learned: the loop keeps the set, marks it stale and tries again with backoff. An
///   authoritative "there are none" is an empty set, not an error.
/// - Bound what may hang. The loop drops a `Full` or `Confirm` read after
///   [`FollowConfig::read_timeout`](crate::FollowConfig::read_timeout) and a `Changed` read at the next periodic resync.
/// - Return errors without secrets.
///
/// # Cancel safety
///
/// The loop drops the future at any await (stop, resync, confirm, nudge) and asks `Full` or `Confirm` next. A blocking
/// call to the registry has to end with the future.
#[async_trait]
pub trait Source: Send + 'static {
    /// One entry: [`Instance`] for services, [`KeyValue`](crate::KeyValue) for watched configuration.
    type Item: Send + 'static;

    /// Reads as the contract above says.
    ///
    /// # Errors
    ///
    /// Whatever kept the source from learning the set.
    async fn read(&mut self, want: Read) -> Result<Reading<Self::Item>>;
}

/// What the following loop wants from the next [`Source::read`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a source has to handle every one of them")]
pub enum Read {
    /// The complete set, now.
    Full,
    /// The complete set, when it may have changed.
    Changed,
    /// The complete set, now, by the strongest read there is.
    Confirm,
}

/// What a [`Source`] has learned.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "written by backends, matched by the loop alone")]
pub enum Reading<T = Instance> {
    /// The complete set.
    Set {
        /// One element per entry of the registry.
        entries: Vec<Result<T, Error>>,
        /// `Some` of a polled source: read `Full` again after this long (a DNS TTL); the loop clamps it and adds
        /// jitter. `None`: ask `Changed` next.
        refresh_in: Option<Duration>,
    },
    /// The position was lost (compaction, an index or revision that went back): read `Full`. The reason is for the log.
    /// Not an error, nothing becomes stale.
    Resync(&'static str),
}

impl<T> Reading<T> {
    /// The complete set of a source that can wait for changes.
    #[must_use]
    pub fn set(entries: Vec<Result<T, Error>>) -> Self {
        Self::Set { entries, refresh_in: None }
    }
}
