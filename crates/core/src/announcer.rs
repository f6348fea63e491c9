use std::{future, time::Duration};

use async_trait::async_trait;

use crate::{CheckResult, Instance, Result};

/// The writing half of a backend: the calls that keep one registration up.
///
/// # Contract
///
/// The loop
///
/// - makes one call at a time, and drops a call after
///   [`AnnounceConfig::call_timeout`](crate::AnnounceConfig::call_timeout);
/// - repeats a call whose outcome is unknown, so every call must be idempotent;
/// - calls `announce` first, after each change of the announcement and after each loss; `renew`
///   when the [`LeaseTtl`] requires it, however often the announcement changes;
/// - makes no call after [`withdraw`](Self::withdraw), except an `announce` when a critical health
///   check passes again.
///
/// An implementation
///
/// - must write [`Announcement::incarnation`] with the entry where the format has a place for it;
/// - must not replace or remove an entry of another incarnation, except in an `announce` for which
///   [`Announcement::takes_over`] is true. Where the registry has no conditional write, it must
///   read the entry first, and document the race of one round trip;
/// - may change the value of an entry without a renewal of its lease: an `announce` need not
///   restart the TTL, unless it is the first one or follows a loss.
///
/// # Cancel safety
///
/// A dropped `announce`, `renew` or `withdraw` may or may not have taken effect; the next call must
/// cope with both.
#[async_trait]
pub trait Announcer: Send + 'static {
    /// Returns whether the registry itself shows a critical instance as such.
    ///
    /// Consul does, by its TTL check. From other registries the loop withdraws a critical instance,
    /// and announces it again after its recovery.
    fn shows_health(&self) -> bool {
        false
    }

    /// Writes the announcement, whatever this registration has written before.
    ///
    /// Returns [`Renewal::Renewed`] once the registry has accepted it, and
    /// [`LossReason::TakenOver`] for an entry of another incarnation that must not be replaced.
    ///
    /// # Errors
    ///
    /// A transient error is repeated with backoff. A permanent error is a refusal of this
    /// announcement: the loop restores the one accepted before. An error that is
    /// [without effect](crate::Error::without_effect) leaves nothing to withdraw.
    async fn announce(&mut self, announcement: &Announcement) -> Result<Renewal>;

    /// Renews the lease, and verifies the entry from time to time.
    ///
    /// Returns [`Renewal::Lost`] for an entry that is gone or of another incarnation; that is not
    /// an error.
    ///
    /// # Errors
    ///
    /// The registry cannot be reached, or refuses the renewal.
    async fn renew(&mut self, announcement: &Announcement) -> Result<Renewal>;

    /// Resolves when the registry reports a loss: a watch of the entry, the end of a session.
    ///
    /// Level-triggered: the loop drops it and polls it anew around each call, so it must report a
    /// loss that happened in between. After a reported [`LossReason::TakenOver`] it should resolve
    /// with [`LossReason::Gone`] when the other entry is gone; resolving with `TakenOver` again is
    /// allowed. Never resolves by default: each `renew` verifies the entry.
    ///
    /// # Cancel safety
    ///
    /// Must be cancel safe.
    async fn lost(&mut self) -> LossReason {
        future::pending().await
    }

    /// Removes the entry if it is of this incarnation. Success if there is none.
    ///
    /// # Errors
    ///
    /// The registry cannot be reached, or refuses.
    async fn withdraw(&mut self) -> Result<()>;
}

/// The content of one registration: what its entry must contain.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Announcement {
    /// The service that the instance belongs to.
    pub service: String,
    /// The instance, with its latest weight, metadata and status.
    pub instance: Instance,
    /// The latest result of the server's own check; `Passing` without one.
    pub health: CheckResult,
    /// Whether an entry of another incarnation is to be replaced.
    ///
    /// True until the registry has accepted the registration for the first time: the entry is a
    /// predecessor's. False later: it is a successor's.
    pub takes_over: bool,
    incarnation: String,
}

/// The lifetime of an entry without renewals, and the interval of renewals.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct LeaseTtl {
    ttl: Option<Duration>,
    renew_interval: Duration,
    pub(crate) retry_cap: Option<Duration>,
}

/// The registry's answer to an announcement or a renewal.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Renewal {
    /// The entry is there and belongs to this registration.
    Renewed(LeaseTtl),
    /// As `Renewed`, and an operator has set another status than that of the announcement.
    ///
    /// The status is the registry's word: `"OUT_OF_SERVICE"`.
    Overridden(LeaseTtl, &'static str),
    /// It is not, or does not.
    Lost(LossReason),
}

/// Why an entry no longer belongs to its registration.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum LossReason {
    /// The registry has no such entry, or one with another content that has no owner.
    Gone,
    /// The session or lease that the entry belonged to has ended.
    SessionEnded,
    /// Another registration has written its own entry in this place.
    TakenOver {
        /// A description of the other one: its address, else its incarnation or lease.
        by: String,
    },
}

impl Announcement {
    /// Creates the first announcement of a registration: passing, a new incarnation.
    pub fn new(service: impl Into<String>, instance: Instance) -> Self {
        Self {
            service: service.into(),
            instance,
            health: CheckResult::Passing,
            incarnation: format!("{:032x}", fastrand::u128(..)),
            takes_over: true,
        }
    }

    /// Returns the random id of this registration: 32 hexadecimal digits.
    ///
    /// It is the same in all its announcements.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }
}

impl LeaseTtl {
    /// An entry that expires after `ttl`, and is renewed three times within it.
    pub fn new(ttl: Duration) -> Self {
        Self { ttl: Some(ttl), renew_interval: ttl / 3, retry_cap: None }
    }

    /// An entry that never expires, and is verified at this interval.
    pub const fn unlimited(renew_interval: Duration) -> Self {
        Self { ttl: None, renew_interval, retry_cap: None }
    }

    /// Limits the pause after an attempt that fails as `Unavailable` or by a `Timeout`.
    ///
    /// The limit of other pauses is the interval of renewals, which is the default. For a backend
    /// whose attempts cost the registry nothing while it is away. At least 1 s.
    pub const fn retried_within(self, cap: Duration) -> Self {
        Self { retry_cap: Some(cap), ..self }
    }

    /// Returns the time after which the registry drops an entry without renewals.
    ///
    /// At most one year; `None` where nothing expires.
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl.map(|ttl| ttl.min(MAX_TTL))
    }

    /// Returns the interval of renewals, from 100 ms to one day.
    pub fn renew_interval(&self) -> Duration {
        self.renew_interval.clamp(MIN_RENEW_INTERVAL, MAX_RENEW_INTERVAL)
    }
}

const MIN_RENEW_INTERVAL: Duration = Duration::from_millis(100);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_RENEW_INTERVAL: Duration = DAY;
const MAX_TTL: Duration = DAY.saturating_mul(365);
