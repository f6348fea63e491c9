use std::time::Duration;

use serde::Deserialize;

use crate::duration::{self, MAX};

/// The treatment of instances that are absent, unhealthy, or have weight 0.
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
/// that refuses three connections in a row.
///
/// A registry that was restarted may be read while only a part of the instances is back. So what
/// the first set after an error or a resync lacks is held too, for [`hold`](Self::hold).
///
/// Orderly departures count too, because a registry does not report the reason: of three instances
/// that leave within 2 s, the first is removed, and when the second leaves both are held. An
/// instance that was drained before it left is not held again unless nothing is left. Nor is one
/// that left alone: a calm gap of a quarter of the window follows it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[non_exhaustive]
#[serde(default, deny_unknown_fields)]
pub struct LossGuard {
    /// Holds a loss that leaves less than this share of the window's largest set.
    ///
    /// The rest of such a loss is held too when most of it has come back. Defaults to 0.5, the
    /// panic threshold of Envoy.
    pub fraction: f64,
    /// The time in which losses are added up.
    ///
    /// Defaults to 10 s: registries lose leases one event at a time.
    #[serde(deserialize_with = "duration::deserialize")]
    pub window: Duration,
    /// The time for which lost instances are held. Defaults to 10 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub hold: Duration,
    /// The same when nothing is left.
    ///
    /// Defaults to 2 min: Consul agents refill a wiped registry within 61 to 115 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub hold_empty: Duration,
    /// The time for which a registered instance that a filter hides is held.
    ///
    /// Defaults to 30 s. The filter is [`Publisher::wants`](crate::Publisher::wants). An instance
    /// is critical for some seconds when an agent restarts, or for three intervals of a health
    /// check. It keeps its connections and statistics, and gets no requests unless no other is
    /// usable.
    #[serde(deserialize_with = "duration::deserialize")]
    pub hold_unhealthy: Duration,
    /// Whether an instance whose status accepts no requests is lost.
    ///
    /// Defaults to `true`.
    pub by_status: bool,
    /// Whether an instance with weight 0 is lost. Defaults to `true`.
    pub by_weight: bool,
    /// Whether the replacement of too many instances, in one read, is a loss.
    ///
    /// Defaults to `true`.
    pub by_replacement: bool,
}

impl LossGuard {
    /// With times that can be added to an instant.
    pub(crate) fn clamped(self) -> Self {
        Self {
            window: self.window.min(MAX),
            hold: self.hold.min(MAX),
            hold_empty: self.hold_empty.min(MAX),
            hold_unhealthy: self.hold_unhealthy.min(MAX),
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
