use std::{future, time::Duration};

use async_trait::async_trait;

use crate::{Health, Instance, Result};

/// The writing half of a backend's wire: what the announcing loop asks of it. One per registration.
///
/// # Contract
///
/// - Every call is idempotent: the loop repeats it after an error whose outcome is unknown.
/// - The loop never makes two calls at once, and after [`withdraw`](Self::withdraw) makes no other unless it announces
///   anew (after a critical check has passed again).
/// - `announce` makes the registry say `desired`, whatever it says now: the first time, after a change, after a loss.
/// - `renew` proves life, and verifies from time to time that the entry is still there and still ours.
/// - Bound every call: the loop drops one after
///   [`AnnounceConfig::call_timeout`](crate::AnnounceConfig::call_timeout).
///
/// # Cancel safety
///
/// A dropped `announce`, `renew` or `withdraw` may or may not have taken effect; the next call has to cope.
#[async_trait]
pub trait Announcer: Send + 'static {
    /// Whether the registry itself shows a critical instance as such (Consul's TTL check). Otherwise the loop withdraws
    /// a critical instance and announces it again when it has recovered.
    fn shows_health(&self) -> bool {
        false
    }

    /// Makes the registry say `desired`. `Ok`: the registry has accepted it.
    ///
    /// # Errors
    ///
    /// The registry could not be asked, or refused.
    async fn announce(&mut self, desired: &Desired) -> Result<Term>;

    /// Proves life and verifies the entry.
    ///
    /// # Errors
    ///
    /// The registry could not be asked, or refused; that it does not know the entry is [`Renewal::Lost`], not an error.
    async fn renew(&mut self, desired: &Desired) -> Result<Renewal>;

    /// Resolves when the registry tells that the entry is gone (a watch of the own key, a session event).
    ///
    /// # Cancel safety
    ///
    /// Has to be cancel safe: the loop drops it and asks again.
    async fn lost(&mut self) {
        future::pending::<()>().await;
    }

    /// Removes the entry if it is ours. An unknown entry is success.
    ///
    /// # Errors
    ///
    /// The registry could not be asked, or refused.
    async fn withdraw(&mut self) -> Result<()>;
}

/// What the registry shall say.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Desired {
    /// The service that the instance belongs to.
    pub service: String,
    /// The instance, with its latest weight, metadata and status.
    pub instance: Instance,
    /// What the server's own check said last; `Passing` without one.
    pub health: Health,
}

/// How long the registry believes an announcement, and when to prove life again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "two numbers that every backend has to give")]
pub struct Term {
    /// The time after which the registry forgets us unless we renew; `None` where nothing expires.
    pub ttl: Option<Duration>,
    /// When to renew: a third of the TTL is the custom, so that two renewals may fail.
    pub renew_every: Duration,
}

/// The registry's answer to a renewal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the two answers there are")]
pub enum Renewal {
    /// It knows us.
    Held(Term),
    /// It does not, or the entry is no longer ours: announce again.
    Lost,
}

impl Desired {
    /// `instance` as a member of `service`, passing.
    #[must_use]
    pub fn new(service: impl Into<String>, instance: Instance) -> Self {
        Self { service: service.into(), instance, health: Health::Passing }
    }
}

impl Term {
    /// Renewed three times within its TTL.
    #[must_use]
    pub fn of_ttl(ttl: Duration) -> Self {
        Self { ttl: Some(ttl), renew_every: ttl / 3 }
    }
}
