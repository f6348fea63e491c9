//! The settings that all registries have.

mod announce;
mod follow;
mod loss;

use std::time::Duration;

use serde::Deserialize;

pub use self::{
    announce::AnnounceConfig,
    follow::FollowConfig,
    loss::{LossGuard, LossPolicy},
};
use crate::{AddressPolicy, duration};

/// Settings that all registries have: of what they publish, and of the two loops.
///
/// ```
/// use std::time::Duration;
/// use tower_sd::discovery::RegistryConfig;
/// use tower_sd::MemoryRegistry;
///
/// let config = RegistryConfig::default().ttl(Duration::from_secs(5));
/// let registry = MemoryRegistry::with_config(config);
/// ```
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
#[serde(default, deny_unknown_fields)]
#[must_use]
pub struct RegistryConfig {
    /// The lifetime of an entry without renewals.
    ///
    /// Defaults to the backend's, mostly 15 s. [`Registration::ttl`] overrides it.
    ///
    /// [`Registration::ttl`]: crate::Registration::ttl
    #[serde(deserialize_with = "duration::deserialize_some")]
    pub ttl: Option<Duration>,
    /// The treatment of losses.
    ///
    /// Defaults to [`LossPolicy::Guard`] with its defaults.
    pub loss: LossPolicy,
    /// The time after the first failed read after which the set is emptied.
    ///
    /// Defaults to never: instances outlive their registry. The set is emptied by a timer, unless
    /// the registry was read meanwhile, and keeps that failure as its error; go-kit's
    /// `InvalidateOnError`.
    #[serde(deserialize_with = "duration::deserialize_option")]
    pub invalidate_after: Option<Duration>,
    /// The addresses that are accepted.
    ///
    /// Defaults to [`AddressPolicy::default`].
    pub addresses: AddressPolicy,
    /// The time for which a removal waits for the reads that follow it.
    ///
    /// Defaults to 50 ms. A rolling replacement often adds a few milliseconds after it has removed,
    /// and a suspended Consul agent returns an empty set for 30 ms when it resumes. With a longer
    /// wait requests go to an instance that has left.
    #[serde(deserialize_with = "duration::deserialize")]
    pub removal_wait: Duration,
    /// The largest accepted set: a larger one is an error, and the old one is kept.
    ///
    /// Defaults to 100 000 instances, some 50 MB.
    pub max_instances: usize,
    /// The settings of the following loop.
    pub follow: FollowConfig,
    /// The settings of the announcing loop.
    pub announce: AnnounceConfig,
}

impl RegistryConfig {
    /// Sets [`ttl`](Self::ttl).
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    /// Sets [`loss`](Self::loss).
    pub fn loss(self, loss: LossPolicy) -> Self {
        Self { loss, ..self }
    }

    /// Sets [`invalidate_after`](Self::invalidate_after).
    pub fn invalidate_after(self, after: Duration) -> Self {
        Self { invalidate_after: Some(after), ..self }
    }

    /// Sets [`addresses`](Self::addresses).
    pub fn addresses(self, addresses: AddressPolicy) -> Self {
        Self { addresses, ..self }
    }

    /// Sets [`removal_wait`](Self::removal_wait).
    pub fn removal_wait(self, wait: Duration) -> Self {
        Self { removal_wait: wait, ..self }
    }

    /// Sets [`max_instances`](Self::max_instances).
    pub fn max_instances(self, max_instances: usize) -> Self {
        Self { max_instances, ..self }
    }

    /// Sets [`follow`](Self::follow).
    pub fn follow(self, follow: FollowConfig) -> Self {
        Self { follow, ..self }
    }

    /// Sets [`announce`](Self::announce).
    pub fn announce(self, announce: AnnounceConfig) -> Self {
        Self { announce, ..self }
    }
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            ttl: None,
            loss: LossPolicy::default(),
            invalidate_after: None,
            addresses: AddressPolicy::default(),
            removal_wait: Duration::from_millis(50),
            max_instances: 100_000,
            follow: FollowConfig::default(),
            announce: AnnounceConfig::default(),
        }
    }
}
