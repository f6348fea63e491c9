use std::time::Duration;

/// Settings of the announcing loop.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AnnounceConfig {
    /// Where is announced, for logs and errors: `"consul"`.
    pub backend: &'static str,
    /// How long one call of the announcer may take. Default 5 s.
    pub call_timeout: Duration,
    /// How long a health check may take before it counts as critical. Default 5 s.
    pub health_timeout: Duration,
    /// The ceiling of the first pause after a failed call. Default 250 ms. The ceiling of every later one is the renewal
    /// interval (at least 1 s, at most 60 s): a registry that comes back hears of us within one interval, and is never
    /// asked more often than when it is well.
    pub backoff_initial: Duration,
    /// Draws jitter from this seed instead of a random one: for tests.
    pub seed: Option<u64>,
}

impl AnnounceConfig {
    /// The defaults, for announcing in `backend`.
    #[must_use]
    pub fn new(backend: &'static str) -> Self {
        Self {
            backend,
            call_timeout: Duration::from_secs(5),
            health_timeout: Duration::from_secs(5),
            backoff_initial: Duration::from_millis(250),
            seed: None,
        }
    }
}
