use std::time::Duration;

/// Settings of an [`Endpointer`](crate::Endpointer).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointerConfig {
    /// How many factories may run at once. Default 32: enough that one that hangs delays nobody, few enough that the
    /// first snapshot of a large service does not open 10 000 connections in one instant.
    pub max_making: usize,
    /// How long one run of the factory may take. Default 10 s; then it has failed, and is tried again.
    pub make_timeout: Duration,
    /// The ceiling of the first pause after a failed factory or a refused connection; it doubles up to
    /// [`max_pause`](Self::max_pause). Default 100 ms.
    pub first_pause: Duration,
    /// The ceiling of every later pause. Default 10 s: a server that is back is found within 5 s on average.
    pub max_pause: Duration,
    /// How long an endpoint may take to become ready. Defaults to 1 s. A service that is pending for longer, with
    /// nothing in flight, counts as down.
    pub connect_timeout: Duration,
    /// How long an instance that left may finish its requests in flight. Default 30 s, what Kubernetes gives a pod to
    /// stop; then its service is dropped.
    pub drain: Duration,
}

impl EndpointerConfig {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            max_making: 32,
            make_timeout: Duration::from_secs(10),
            first_pause: Duration::from_millis(100),
            max_pause: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(1),
            drain: Duration::from_secs(30),
        }
    }

    /// Sets [`max_making`](Self::max_making); 0 counts as 1.
    #[must_use]
    pub fn max_making(mut self, max_making: usize) -> Self {
        self.max_making = max_making;
        self
    }

    /// Sets [`make_timeout`](Self::make_timeout).
    #[must_use]
    pub fn make_timeout(mut self, make_timeout: Duration) -> Self {
        self.make_timeout = make_timeout;
        self
    }

    /// Sets [`first_pause`](Self::first_pause) and [`max_pause`](Self::max_pause).
    #[must_use]
    pub fn pauses(mut self, first: Duration, max: Duration) -> Self {
        self.first_pause = first;
        self.max_pause = max;
        self
    }

    /// Sets [`connect_timeout`](Self::connect_timeout).
    #[must_use]
    pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// Sets [`drain`](Self::drain).
    #[must_use]
    pub fn drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }
}

impl Default for EndpointerConfig {
    fn default() -> Self {
        Self::new()
    }
}
