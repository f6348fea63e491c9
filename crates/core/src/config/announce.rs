use std::time::Duration;

use serde::Deserialize;

use crate::duration;

/// Settings of the announcing loop.
///
/// A duration outside of the useful range is clamped.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
#[serde(default, deny_unknown_fields)]
pub struct AnnounceConfig {
    /// The longest time of one call of the announcer.
    ///
    /// Defaults to 5 s, and is at least 0.5 s. A renewal gets at most half of the TTL, so that
    /// another one fits in.
    #[serde(deserialize_with = "duration::deserialize")]
    pub call_timeout: Duration,
    /// The longest time of a health check, after which it counts as critical.
    ///
    /// Defaults to 5 s, and is at least 0.1 s. It is never more than a third of the TTL, nor, until
    /// the registry has granted one, than half of
    /// [`Registration::fail_fast`](crate::Registration::fail_fast)'s timeout.
    #[serde(deserialize_with = "duration::deserialize")]
    pub health_timeout: Duration,
    /// The ceiling of the first pause after a failed call. Defaults to 250 ms.
    #[serde(deserialize_with = "duration::deserialize")]
    pub initial_backoff: Duration,
    /// The ceiling of later pauses before the first success. Defaults to 15 s.
    ///
    /// Within the timeout of [`Registration::fail_fast`](crate::Registration::fail_fast) it is a
    /// fifth of that, and 1 s at least. After the first success, the ceiling is the renewal
    /// interval, within 1 s and 60 s: a registry that comes back gets an announcement within one
    /// interval.
    #[serde(deserialize_with = "duration::deserialize")]
    pub max_backoff: Duration,
    /// The least pause after an announcement was refused for good.
    ///
    /// Such an error, a denied access for example, is mended by no repetition. Defaults to 15 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub denied_interval: Duration,
    /// Draws jitter from this seed instead of a random one: for tests.
    pub seed: Option<u64>,
}

impl Default for AnnounceConfig {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_secs(5),
            health_timeout: Duration::from_secs(5),
            initial_backoff: Duration::from_millis(250),
            max_backoff: Duration::from_secs(15),
            denied_interval: Duration::from_secs(15),
            seed: None,
        }
    }
}
