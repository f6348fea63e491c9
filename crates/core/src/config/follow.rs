use std::time::Duration;

use serde::Deserialize;

use crate::duration::{self, MAX};

/// Settings of the following loop.
///
/// A duration outside of the useful range is clamped; `None` means never.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
#[serde(default, deny_unknown_fields)]
pub struct FollowConfig {
    /// The ceiling of the first pause after a failed read. Defaults to 250 ms.
    #[serde(deserialize_with = "duration::deserialize")]
    pub initial_backoff: Duration,
    /// The ceiling of every later pause. Defaults to 60 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub max_backoff: Duration,
    /// The ceiling of every pause before the first set has been read.
    ///
    /// Defaults to 5 s: callers wait for that set.
    #[serde(deserialize_with = "duration::deserialize")]
    pub first_max_backoff: Duration,
    /// The least pause after an error that is not transient (access denied).
    ///
    /// Defaults to 15 s: a token or a setting must change first, and a registry logs every denied
    /// request.
    #[serde(deserialize_with = "duration::deserialize")]
    pub denied_interval: Duration,
    /// The mean time between successful reads when the source returns without pause.
    ///
    /// Two may follow immediately. Defaults to 100 ms, the limit of consul-template.
    #[serde(deserialize_with = "duration::deserialize")]
    pub min_interval: Duration,
    /// The least time between reads of a polled source. Defaults to 5 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub min_refresh: Duration,
    /// The longest time between reads of a polled source. Defaults to 5 min.
    #[serde(deserialize_with = "duration::deserialize")]
    pub max_refresh: Duration,
    /// The bound of a read that does not wait for a change. Defaults to 30 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub read_timeout: Duration,
    /// The time, within 10 %, after which everything is read anew.
    ///
    /// Although nothing has happened: defaults to 15 min: etcd has lost watch events in several
    /// releases, and Consul has missed wake-ups.
    #[serde(deserialize_with = "duration::deserialize_option")]
    pub resync: Option<Duration>,
    /// The time without a set or a proof of life after which the set is stale.
    ///
    /// Whatever the source does. Defaults to 2 min. A silent source is read in time before: a
    /// source that cannot prove life by itself costs one read in this time, and its set does not
    /// become stale. A polled source chooses its own pace.
    #[serde(deserialize_with = "duration::deserialize_option")]
    pub max_silence: Option<Duration>,
    /// The seed of the jitter. Defaults to a random one.
    pub seed: Option<u64>,
}

impl FollowConfig {
    /// Moves every duration into the range that the loop can work with; [`Backoff`] does so with
    /// its own.
    ///
    /// [`Backoff`]: crate::Backoff
    pub(crate) fn clamped(self) -> Self {
        let clamp = |duration: Duration| duration.clamp(Duration::from_millis(1), MAX);
        let min_refresh = clamp(self.min_refresh);
        Self {
            max_backoff: clamp(self.max_backoff),
            min_interval: clamp(self.min_interval),
            min_refresh,
            max_refresh: clamp(self.max_refresh).max(min_refresh),
            read_timeout: clamp(self.read_timeout),
            resync: self.resync.map(clamp),
            max_silence: self.max_silence.map(clamp),
            ..self
        }
    }
}

impl Default for FollowConfig {
    fn default() -> Self {
        Self {
            initial_backoff: Duration::from_millis(250),
            max_backoff: Duration::from_secs(60),
            first_max_backoff: Duration::from_secs(5),
            denied_interval: Duration::from_secs(15),
            min_interval: Duration::from_millis(100),
            min_refresh: Duration::from_secs(5),
            max_refresh: Duration::from_secs(300),
            read_timeout: Duration::from_secs(30),
            resync: Some(Duration::from_secs(900)),
            max_silence: Some(Duration::from_secs(120)),
            seed: None,
        }
    }
}
