use std::{fmt, sync::Arc, time::Duration};

use serde::Deserialize;

use crate::{AddressPolicy, Instance, duration};

/// Settings of a [`Publisher`](crate::Publisher).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PublisherConfig {
    /// The name of the backend, for logs and errors: `"consul"`.
    pub backend: &'static str,
    /// The service, for logs.
    pub service: String,
    /// The treatment of losses.
    pub loss: LossPolicy,
    /// The treatment of the set while the registry cannot be read. Defaults to
    /// [`StalePolicy::Keep`].
    pub stale: StalePolicy,
    /// The addresses that are accepted.
    pub addresses: AddressPolicy,
    /// The time for which a removal waits for the reads that follow it. Defaults to 50 ms.
    ///
    /// A rolling replacement often adds a few milliseconds after it has removed, and a suspended
    /// Consul agent returns an empty set for 30 ms when it resumes. With a longer wait requests go
    /// to an instance that has left.
    pub removal_wait: Duration,
    /// The largest accepted set: a larger one is an error, and the old one is kept. Defaults to 100
    /// 000, some 50 MB.
    pub max_instances: usize,
    wants: Wants,
}

/// The treatment of instances that are no longer offered: absent, unhealthy, or with weight 0.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum LossPolicy {
    /// Every loss is published. For registries that are always right.
    Accept,
    /// A loss is published unless it is too large.
    Guard(LossGuard),
}

/// The loss guard: instances that are lost together are held for a while.
///
/// A registry that was restarted or wiped, or a query with the wrong token, returns an empty set
/// for a service that runs well; a broken health check makes all of its instances unhealthy. So a
/// loss of too many is published only after it was confirmed by the strongest read, at the end of
/// its term. Until then a balancer uses the lost instances when no other is usable, and drops one
/// that refuses a connection.
///
/// Orderly departures count too, because a registry does not report the reason: of three instances
/// that leave within 2 s, the first is removed, and when the second leaves both are held. An
/// instance that was drained before it left, or left alone (with a calm gap of a quarter of the
/// window after it), is not held again unless nothing is left.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[non_exhaustive]
#[serde(default, deny_unknown_fields)]
pub struct LossGuard {
    /// Holds a loss that leaves less than this share of the largest set within the window. Defaults
    /// to 0.5, the panic threshold of Envoy.
    pub fraction: f64,
    /// The time in which losses are added up. Defaults to 10 s: registries lose leases one event at
    /// a time.
    #[serde(deserialize_with = "duration::deserialize")]
    pub window: Duration,
    /// The time for which lost instances are held. Defaults to 10 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub hold: Duration,
    /// The same when nothing is left. Defaults to 2 min: Consul agents refill a wiped registry
    /// within 61 to 115 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub hold_empty: Duration,
    /// The time for which a single instance that a filter hides ([`PublisherConfig::wants`]) is
    /// held while it is still registered. Defaults to 30 s.
    ///
    /// An instance that is critical for some seconds (a restarted agent, three intervals of a
    /// health check) keeps its connections and statistics, and gets no requests unless no other
    /// instance is usable.
    #[serde(deserialize_with = "duration::deserialize")]
    pub hold_unhealthy: Duration,
    /// Whether an instance with a status that accepts no requests is lost. Defaults to `true`.
    pub by_status: bool,
    /// Whether an instance with weight 0 is lost. Defaults to `true`.
    pub by_weight: bool,
    /// Whether the replacement of too many instances by others, in one read, is a loss. Defaults to
    /// `true`.
    pub by_replacement: bool,
}

/// The filter of a publisher.
#[derive(Clone, Default)]
pub(super) struct Wants(Option<Arc<Filter>>);

type Filter = dyn Fn(&Instance) -> bool + Send + Sync;

/// The treatment of the set while the registry cannot be read.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum StalePolicy {
    /// It is kept: instances outlive their registry.
    #[default]
    Keep,
    /// It is emptied when the registry has not been read for this long since the first failure, by
    /// a timer, and keeps that failure as its error; go-kit's `InvalidateOnError`.
    InvalidateAfter(#[serde(deserialize_with = "duration::deserialize")] Duration),
}

impl PublisherConfig {
    /// Creates the default settings for `service` of `backend`.
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
            wants: Wants::default(),
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

    /// Shows the instances only for which `wants`, and every earlier filter, returns `true`.
    ///
    /// For the filter of a query, by health or tags. The source returns the other entries as well:
    /// a hidden instance is still registered, and the loss guard treats it so
    /// ([`LossGuard::hold_unhealthy`]).
    #[must_use]
    pub fn wants(mut self, wants: impl Fn(&Instance) -> bool + Send + Sync + 'static) -> Self {
        let earlier = std::mem::take(&mut self.wants);
        self.wants = Wants(Some(Arc::new(move |it: &Instance| earlier.of(it) && wants(it))));
        self
    }

    pub(super) fn filter(&self) -> Wants {
        self.wants.clone()
    }
}

impl LossGuard {
    /// With times that can be added to an instant.
    pub(super) fn clamped(self) -> Self {
        let clamp = |duration: Duration| duration.min(Duration::from_secs(30 * 24 * 3600));
        Self {
            window: clamp(self.window),
            hold: clamp(self.hold),
            hold_empty: clamp(self.hold_empty),
            hold_unhealthy: clamp(self.hold_unhealthy),
            ..self
        }
    }
}

impl Default for LossGuard {
    fn default() -> Self {
        Self {
            fraction: 0.5,
            window: Duration::from_secs(10),
            hold: Duration::from_secs(10),
            hold_empty: Duration::from_secs(120),
            hold_unhealthy: Duration::from_secs(30),
            by_status: true,
            by_weight: true,
            by_replacement: true,
        }
    }
}

impl Default for LossPolicy {
    fn default() -> Self {
        Self::Guard(LossGuard::default())
    }
}

impl Wants {
    pub(super) fn of(&self, instance: &Instance) -> bool {
        self.0.as_ref().is_none_or(|wants| wants(instance))
    }
}

impl fmt::Debug for Wants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "a filter" } else { "all" })
    }
}
