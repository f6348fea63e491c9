use std::time::Duration;

/// Settings of an [`Endpointer`](crate::Endpointer).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointerConfig {
    /// How many factories may run at once. Default 32: enough that one that hangs delays nobody, few enough that the
    /// first snapshot of a large service does not open 10 000 connections in one instant.
    pub max_concurrent_creations: usize,
    /// How long one run of the factory may take. Default 10 s; then it has failed, and is tried again.
    pub create_timeout: Duration,
    /// The ceiling of the first pause after a failed factory or a refused connection; it doubles up to
    /// [`max_backoff`](Self::max_backoff). Default 100 ms.
    pub initial_backoff: Duration,
    /// The ceiling of every later pause. Default 10 s: a server that is back is found within 5 s on average.
    pub max_backoff: Duration,
    /// How long an endpoint may take to become ready. Defaults to 1 s. A service that is pending for longer, with
    /// nothing in flight, counts as down.
    pub connect_timeout: Duration,
    /// How long an instance that left may finish its requests in flight. Default 30 s, what Kubernetes gives a pod to
    /// stop; then its service is dropped.
    pub drain_timeout: Duration,
}

impl EndpointerConfig {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            max_concurrent_creations: 32,
            create_timeout: Duration::from_secs(10),
            initial_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(30),
        }
    }

    /// Sets [`max_concurrent_creations`](Self::max_concurrent_creations); 0 counts as 1.
    #[must_use]
    pub fn max_concurrent_creations(mut self, max_making: usize) -> Self {
        self.max_concurrent_creations = max_making;
        self
    }

    /// Sets [`create_timeout`](Self::create_timeout).
    #[must_use]
    pub fn create_timeout(mut self, make_timeout: Duration) -> Self {
        self.create_timeout = make_timeout;
        self
    }

    /// Sets [`initial_backoff`](Self::initial_backoff) and [`max_backoff`](Self::max_backoff).
    #[must_use]
    pub fn backoff(mut self, first: Duration, max: Duration) -> Self {
        self.initial_backoff = first;
        self.max_backoff = max;
        self
    }

    /// Sets [`connect_timeout`](Self::connect_timeout).
    #[must_use]
    pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// Sets [`drain_timeout`](Self::drain_timeout).
    #[must_use]
    pub fn drain_timeout(mut self, drain: Duration) -> Self {
        self.drain_timeout = drain;
        self
    }
}

impl Default for EndpointerConfig {
    fn default() -> Self {
        Self::new()
    }
}
