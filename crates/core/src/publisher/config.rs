use std::time::Duration;

use crate::AddressPolicy;

/// Settings of a [`Publisher`](crate::Publisher).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PublisherConfig {
    /// Who feeds it, for logs and errors: `"consul"`.
    pub backend: &'static str,
    /// The service, for logs.
    pub service: String,
    /// What becomes of removals.
    pub loss: LossPolicy,
    /// What becomes of the set while the registry cannot be read. Default: it is kept.
    pub stale: StalePolicy,
    /// Which addresses are believed.
    pub addresses: AddressPolicy,
    /// How long a removal waits for what follows it. Default 50 ms: a rolling replacement often adds a few milliseconds
    /// after it has removed, and a suspended Consul agent shows nobody for 30 ms when it wakes up. Longer, and a request
    /// goes to an instance that is known to have left.
    pub removal_wait: Duration,
    /// A set larger than this is an error, and the old one is kept. Default 100 000, some 50 MB.
    pub max_instances: usize,
}

/// What becomes of instances that the registry no longer lists.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum LossPolicy {
    /// They are removed. For registries whose word is final.
    Accept,
    /// They are removed one by one, and held when too many go at once: a registry that was restarted, wiped, or asked
    /// with the wrong token says "nobody is there" of services that run well.
    ///
    /// A registry does not say why an instance is gone, so orderly departures count too: of three that leave within
    /// `window`, the first is removed, and when the second leaves both are held. Nobody is harmed: a held instance is
    /// picked only when no other is usable, and dropped when it refuses a connection.
    Guard {
        /// Hold when less than this share of the largest set of the last `window` is left. Default 0.5, Envoy's panic
        /// threshold: a service that loses more than half at once is more often a registry at fault than a deployment.
        fraction: f64,
        /// How far back the largest set is looked for. Default 10 s: registries lose leases one event at a time.
        window: Duration,
        /// How long an instance is held. Default 10 s.
        hold: Duration,
        /// How long it is held when nobody is left. Default 2 min: Consul's agents fill a wiped registry again within
        /// 61 to 115 s.
        hold_empty: Duration,
    },
}

/// What becomes of the set while the registry cannot be read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum StalePolicy {
    /// It is kept: instances outlive their registry.
    #[default]
    Keep,
    /// It is emptied when the registry has not been read for this long since the first failure, by a timer, and keeps
    /// that failure as its error; go-kit's `InvalidateOnError`.
    InvalidateAfter(Duration),
}

impl PublisherConfig {
    /// The defaults, for what `backend` says of `service`.
    #[must_use]
    pub fn new(backend: &'static str, service: impl Into<String>) -> Self {
        Self {
            backend,
            service: service.into(),
            loss: LossPolicy::default(),
            stale: StalePolicy::default(),
            addresses: AddressPolicy::default(),
            removal_wait: Duration::from_millis(50),
            max_instances: 100_000,
        }
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
}

impl Default for LossPolicy {
    fn default() -> Self {
        Self::Guard {
            fraction: 0.5,
            window: Duration::from_secs(10),
            hold: Duration::from_secs(10),
            hold_empty: Duration::from_secs(120),
        }
    }
}
