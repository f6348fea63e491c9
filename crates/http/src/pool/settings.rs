use std::time::Duration;

use crate::Protocol;

/// The bounds of a pool. The setters of [`HttpFactory`](crate::HttpFactory) say what they are for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) max_idle: usize,
    pub(crate) protocol: Protocol,
    pub(crate) max_http1_connections: usize,
    pub(crate) max_connections: usize,
    pub(crate) max_streams: usize,
    pub(crate) keep_alive_interval: Option<Duration>,
    pub(crate) keep_alive_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: CONNECT_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            max_idle: MAX_IDLE,
            protocol: Protocol::default(),
            max_http1_connections: MAX_HTTP1_CONNECTIONS,
            max_connections: MAX_CONNECTIONS,
            max_streams: MAX_STREAMS,
            keep_alive_interval: Some(KEEP_ALIVE_INTERVAL),
            keep_alive_timeout: KEEP_ALIVE_TIMEOUT,
        }
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

/// An instance that has so many requests of one client in flight does not keep up; a process may open 1024 files by default.
const MAX_HTTP1_CONNECTIONS: usize = 1000;

/// With the 100 streams that most servers grant a connection, more than one instance usually bears.
const MAX_CONNECTIONS: usize = 8;

/// Many servers grant any number of streams; a lost packet then delays them all, and one task serves them.
const MAX_STREAMS: usize = 1000;

/// What Kubernetes' clients use: below the patience of a user, and rare enough to cost nothing.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Three retransmissions of a lost packet (RFC 6298: 1 + 2 + 4 s) and some.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
