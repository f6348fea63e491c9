use std::time::Duration;

/// The bounds of a pool. The setters of [`HttpFactory`](crate::HttpFactory) say what they are for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) max_idle: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { connect_timeout: CONNECT_TIMEOUT, idle_timeout: IDLE_TIMEOUT, max_idle: MAX_IDLE }
    }
}

/// Three tries inside a caller's few seconds; the first retransmission of a lost SYN comes after 1 s (RFC 6298), and
/// another instance answers sooner than that.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Below what most servers and balancers grant an idle connection (60 s and more), so that we close first: a request
/// that meets a closing connection may have to fail.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// More than the requests that one instance usually has in flight from one client; each costs a file descriptor on
/// both sides, and a burst's connections are closed when it is over.
const MAX_IDLE: usize = 100;
