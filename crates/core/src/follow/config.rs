use std::time::Duration;

/// Settings of the following loop.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FollowConfig {
    /// Who is followed, for logs and errors: `"consul"`.
    pub backend: &'static str,
    /// The ceiling of the first pause after a failed read. Default 250 ms.
    pub backoff_initial: Duration,
    /// The ceiling of every later one. Default 60 s.
    pub backoff_cap: Duration,
    /// The least pause after an error that is not transient (access denied). Default 15 s: somebody has to change
    /// something first, and a registry logs every denied request.
    pub denied_interval: Duration,
    /// The mean time between successful reads when the source returns without pause; two may follow at once. Default
    /// 100 ms, consul-template's limit.
    pub min_interval: Duration,
    /// The least time between reads of a polled source. Default 5 s.
    pub min_refresh: Duration,
    /// The longest time between reads of a polled source. Default 5 min.
    pub max_refresh: Duration,
    /// How long a read may take that does not wait for a change. Default 30 s.
    pub read_timeout: Duration,
    /// How often everything is read anew although nothing has happened, within 10 %. Default 15 min: etcd has lost watch
    /// events in several releases, and Consul has missed wake-ups.
    pub resync: Duration,
    /// Draws jitter from this seed instead of a random one: for tests.
    pub seed: Option<u64>,
}

impl FollowConfig {
    /// The defaults, for following `backend`.
    #[must_use]
    pub fn new(backend: &'static str) -> Self {
        Self {
            backend,
            backoff_initial: Duration::from_millis(250),
            backoff_cap: Duration::from_secs(60),
            denied_interval: Duration::from_secs(15),
            min_interval: Duration::from_millis(100),
            min_refresh: Duration::from_secs(5),
            max_refresh: Duration::from_secs(300),
            read_timeout: Duration::from_secs(30),
            resync: Duration::from_secs(900),
            seed: None,
        }
    }
}
