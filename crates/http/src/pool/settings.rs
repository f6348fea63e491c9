use std::time::Duration;

use tokio::time::Instant;

use crate::HttpVersion;

/// The bounds of a pool; the setters of [`HttpFactory`](crate::HttpFactory) document them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) connect_timeout: Duration,
    /// `None`: [`UNANNOUNCED_IDLE`] or [`IDLE`].
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) max_idle: usize,
    pub(crate) protocol: HttpVersion,
    pub(crate) max_http1_connections: usize,
    pub(crate) max_http2_connections: usize,
    pub(crate) max_streams: usize,
    pub(crate) max_header_size: u32,
    /// `None`: hyper's own, [`MAX_HTTP1_HEADERS`].
    pub(crate) max_http1_headers: Option<usize>,
    /// `None`: [`KEEP_ALIVE_INTERVAL`].
    pub(crate) keep_alive_interval: Option<Option<Duration>>,
    pub(crate) keep_alive_timeout: Duration,
    pub(crate) read_timeout: Option<Duration>,
}

impl Settings {
    /// How long an HTTP/1.1 connection is kept whose server has announced `announced`.
    ///
    /// A server closes a moment after its announcement, and a request may cross that close: one
    /// second earlier is safe, or half the time of a shorter announcement.
    pub(super) fn http1_idle(&self, announced: Option<Duration>) -> Duration {
        let Some(announced) = announced else {
            return self.idle_timeout.unwrap_or(UNANNOUNCED_IDLE);
        };
        let safe = announced.saturating_sub(MARGIN).max(announced / 2);
        safe.min(self.idle_timeout.unwrap_or(IDLE))
    }

    /// Of one connection, drawn by chance.
    pub(crate) fn age(&self) -> Option<Duration> {
        Some(self.max_age?.mul_f64(1.0 - fastrand::f64() / 10.0))
    }

    /// The end of a new connection's age; up to a tenth earlier, so that connections of one start
    /// do not end together.
    pub(super) fn retire_at(&self) -> Option<Instant> {
        let age = self.age()?;
        Some(Instant::now() + bounded(age))
    }

    /// How many headers an HTTP/1.1 response may have.
    pub(crate) fn http1_headers(&self) -> usize {
        self.max_http1_headers.unwrap_or(MAX_HTTP1_HEADERS)
    }

    pub(super) fn http2_idle(&self) -> Duration {
        self.idle_timeout.unwrap_or(IDLE)
    }

    pub(super) fn keep_alive_interval(&self) -> Option<Duration> {
        self.keep_alive_interval.unwrap_or(Some(KEEP_ALIVE_INTERVAL))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: CONNECT_TIMEOUT,
            idle_timeout: None,
            max_age: Some(MAX_AGE),
            max_idle: usize::MAX,
            protocol: HttpVersion::default(),
            max_http1_connections: MAX_HTTP1_CONNECTIONS,
            max_http2_connections: MAX_HTTP2_CONNECTIONS,
            max_streams: MAX_STREAMS,
            max_header_size: MAX_HEADER_SIZE,
            max_http1_headers: None,
            keep_alive_interval: None,
            keep_alive_timeout: KEEP_ALIVE_TIMEOUT,
            read_timeout: None,
        }
    }
}

/// Bounds a duration so that no sum with a point in time overflows: nothing of ours runs for
/// longer.
pub(crate) fn bounded(duration: Duration) -> Duration {
    duration.min(Duration::from_secs(10 * 365 * 24 * 3600))
}

/// Three attempts within the few seconds of a caller; the first retransmission of a lost SYN comes
/// after 1 s (RFC 6298), and another instance answers sooner than that.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Below the 60 s and more that most servers and balancers grant an idle connection, so that the
/// client closes first.
const IDLE: Duration = Duration::from_secs(30);

/// Below the shortest common limit of HTTP/1.1 servers, 5 s (Node.js, uvicorn, Apache httpd), as in
/// Node's undici.
const UNANNOUNCED_IDLE: Duration = Duration::from_secs(4);

/// As in Node's agent (`agentKeepAliveTimeoutBuffer`).
const MARGIN: Duration = Duration::from_secs(1);

/// A virtual IP's new backends and rotated certificates are in use after this time; a connect every
/// ten minutes costs nothing.
const MAX_AGE: Duration = Duration::from_secs(10 * 60);

/// An instance with so many requests of one client in flight is overloaded; a process may open 1024
/// files by default.
const MAX_HTTP1_CONNECTIONS: usize = 1000;

/// With the 100 streams that most servers grant a connection, more than one instance usually bears.
const MAX_HTTP2_CONNECTIONS: usize = 8;

/// Many servers grant any number of streams; a lost packet then delays them all, and one task
/// serves them.
const MAX_STREAMS: usize = 1000;

/// A gRPC status with details takes some kilobytes; cookies and tokens rarely more.
const MAX_HEADER_SIZE: u32 = 1 << 20;

/// hyper's own bound: up to it, a response is parsed without an allocation.
const MAX_HTTP1_HEADERS: usize = 100;

/// As in Kubernetes' clients: below the patience of a user, and rare enough to cost nothing.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Three retransmissions of a lost packet (RFC 6298: 1 + 2 + 4 s) and some.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announced_idle_time_is_kept_with_a_margin() {
        let settings = Settings::default();
        let kept = |seconds| settings.http1_idle(Some(Duration::from_secs(seconds)));
        assert_eq!(settings.http1_idle(None), Duration::from_secs(4));
        assert_eq!(kept(0), Duration::ZERO);
        assert_eq!(kept(1), Duration::from_millis(500));
        assert_eq!(kept(5), Duration::from_secs(4));
        assert_eq!(kept(3600), Duration::from_secs(30));
        let short = Settings { idle_timeout: Some(Duration::from_secs(2)), ..settings };
        assert_eq!(short.http1_idle(Some(Duration::from_secs(60))), Duration::from_secs(2));
        assert_eq!(short.http1_idle(None), Duration::from_secs(2));
    }

    #[test]
    fn ages_differ_by_a_tenth() {
        let s = Duration::from_secs;
        let settings = Settings { max_age: Some(s(100)), ..Settings::default() };
        let mut ages: Vec<_> = (0..1000).filter_map(|_| settings.age()).collect();
        ages.sort_unstable();
        let (first, last) = (ages[0], ages[999]);
        assert!(
            s(90) <= first && first < s(91) && s(99) < last && last <= s(100),
            "{first:?} {last:?}"
        );
        assert_eq!(Settings { max_age: None, ..settings }.age(), None);
    }
}
