use std::time::Duration;

use serde::Deserialize;

use crate::{
    AddressPolicy, AnnounceConfig, FollowConfig, LossPolicy, PublisherConfig, StalePolicy,
    duration, registration::TTL,
};

/// Settings that all registries have: of what they publish, and of the two loops.
///
/// ```
/// use std::time::Duration;
/// use tower_sd_core::{MemoryRegistry, RegistryConfig};
///
/// let config = RegistryConfig::default().ttl(Duration::from_secs(5));
/// let registry = MemoryRegistry::with_config(config);
/// ```
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// The lifetime of an entry without renewals. Defaults to the backend's, mostly 15 s.
    ///
    /// [`Registration::ttl`] overrides it.
    ///
    /// [`Registration::ttl`]: crate::Registration::ttl
    #[serde(deserialize_with = "duration::deserialize_some")]
    pub ttl: Option<Duration>,
    /// The treatment of losses.
    pub loss: LossPolicy,
    /// The treatment of a set while the registry cannot be read.
    ///
    /// Defaults to [`StalePolicy::Keep`].
    pub stale: StalePolicy,
    /// The addresses that are accepted.
    pub addresses: AddressPolicy,
    /// The time for which a removal waits for the reads that follow it; see
    /// [`PublisherConfig::removal_wait`]. Defaults to 50 ms.
    #[serde(deserialize_with = "duration::deserialize")]
    pub removal_wait: Duration,
    /// The largest accepted set. Defaults to 100 000 instances.
    pub max_instances: usize,
    /// The settings of the following loop.
    pub follow: FollowConfig,
    /// The settings of the announcing loop.
    pub announce: AnnounceConfig,
}

impl RegistryConfig {
    /// Sets [`ttl`](Self::ttl).
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets [`loss`](Self::loss).
    #[must_use]
    pub fn loss(mut self, loss: LossPolicy) -> Self {
        self.loss = loss;
        self
    }

    /// Sets [`stale`](Self::stale).
    #[must_use]
    pub fn stale(mut self, stale: StalePolicy) -> Self {
        self.stale = stale;
        self
    }

    /// Sets [`addresses`](Self::addresses).
    #[must_use]
    pub fn addresses(mut self, addresses: AddressPolicy) -> Self {
        self.addresses = addresses;
        self
    }

    /// Sets [`removal_wait`](Self::removal_wait).
    #[must_use]
    pub fn removal_wait(mut self, wait: Duration) -> Self {
        self.removal_wait = wait;
        self
    }

    /// Sets [`max_instances`](Self::max_instances).
    #[must_use]
    pub fn max_instances(mut self, max_instances: usize) -> Self {
        self.max_instances = max_instances;
        self
    }

    /// Sets [`follow`](Self::follow).
    #[must_use]
    pub fn follow(mut self, follow: FollowConfig) -> Self {
        self.follow = follow;
        self
    }

    /// Sets [`announce`](Self::announce).
    #[must_use]
    pub fn announce(mut self, announce: AnnounceConfig) -> Self {
        self.announce = announce;
        self
    }

    pub(super) fn publisher(&self, backend: &'static str, service: String) -> PublisherConfig {
        let mut publisher = PublisherConfig::new(backend, service)
            .loss(self.loss)
            .stale(self.stale)
            .addresses(self.addresses.clone());
        publisher.removal_wait = self.removal_wait;
        publisher.max_instances = self.max_instances;
        publisher
    }
}

impl Default for RegistryConfig {
    fn default() -> Self {
        let publisher = PublisherConfig::new("", "");
        Self {
            ttl: None,
            loss: publisher.loss,
            stale: publisher.stale,
            removal_wait: publisher.removal_wait,
            max_instances: publisher.max_instances,
            addresses: publisher.addresses,
            follow: FollowConfig::default(),
            announce: AnnounceConfig::default(),
        }
    }
}
