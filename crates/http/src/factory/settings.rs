//! The setters of [`HttpFactory`].

use std::time::Duration;

use super::HttpFactory;
use crate::{HostPolicy, HttpVersion, Layered, pool::bounded};

impl<B> HttpFactory<B> {
    /// Bounds how long an instance may take to accept a connection, name resolution included.
    ///
    /// Defaults to 1 s: the first lost packet costs that long (RFC 6298), and another instance
    /// answers sooner.
    #[must_use]
    pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.settings.connect_timeout = bounded(connect_timeout);
        self
    }

    /// Closes a connection that carried nothing for this long.
    ///
    /// Over HTTP/1.1 a server that announces a shorter time (`Keep-Alive: timeout=5`) is obeyed,
    /// with a margin of up to 1 s: a request that crosses the server's close fails. Defaults to 30
    /// s, below the 60 s and more that most servers grant, and over HTTP/1.1 without an
    /// announcement to 4 s, below the 5 s of Node.js, uvicorn and Apache httpd.
    #[must_use]
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.settings.idle_timeout = Some(bounded(idle_timeout));
        self
    }

    /// Ends a connection of this age: it takes no new request, and closes when it carries none.
    ///
    /// Thus rotated certificates reach connections that are always busy, and the new backends
    /// behind a virtual IP get requests. Each connection ends up to a tenth of the time earlier, by
    /// chance. Defaults to 10 min; `None` never.
    #[must_use]
    pub fn max_age(mut self, max_age: impl Into<Option<Duration>>) -> Self {
        self.settings.max_age = max_age.into().map(bounded);
        self
    }

    /// Bounds the idle HTTP/1.1 connections kept per instance; 0 makes a connection per request.
    ///
    /// Defaults to no bound but that of all connections: the surplus of a burst closes by its
    /// [`idle_timeout`](Self::idle_timeout), and is there for the next burst until then.
    #[must_use]
    pub fn max_idle(mut self, max_idle: usize) -> Self {
        self.settings.max_idle = max_idle;
        self
    }

    /// Sets the version of HTTP. Defaults to [`HttpVersion::Auto`]: HTTP/1.1 without TLS, and over
    /// TLS the server's choice.
    #[must_use]
    pub fn version(mut self, protocol: HttpVersion) -> Self {
        self.settings.protocol = protocol;
        self
    }

    /// Bounds the connections to an instance over HTTP/1.1.
    ///
    /// Each carries one request at a time.
    ///
    /// At least 1, defaults to 1000. When all are busy, requests wait for one in `poll_ready`,
    /// first come, first served. An instance with a thousand requests of one client is overloaded,
    /// and a process may open 1024 files by default.
    #[must_use]
    pub fn max_http1_connections(mut self, max_connections: usize) -> Self {
        self.settings.max_http1_connections = max_connections.max(1);
        self
    }

    /// Bounds the connections to an instance over HTTP/2.
    ///
    /// At least 1, defaults to 8. Another one is opened when all are full; when there may be no
    /// other, requests wait for a place in `poll_ready`, first come, first served. With the 100
    /// requests that most servers grant a connection, 8 are more than one instance usually bears,
    /// and a burst's surplus closes when idle.
    #[must_use]
    pub fn max_http2_connections(mut self, max_connections: usize) -> Self {
        self.settings.max_http2_connections = max_connections.max(1);
        self
    }

    /// Bounds the requests at a time on one HTTP/2 connection, below the server's grant; at least
    /// 1, defaults to 1000.
    ///
    /// Many servers grant any number; a lost packet then delays them all, and one task serves them.
    #[must_use]
    pub fn max_streams(mut self, max_streams: usize) -> Self {
        self.settings.max_streams = max_streams.max(1);
        self
    }

    /// Bounds the headers of an HTTP/2 response, and its trailers, in bytes (RFC 9113 §6.5.2).
    ///
    /// Defaults to 1 MiB. A response above it is an error that names size and status, see
    /// [`HeadersTooLarge`](crate::HeadersTooLarge); above four times as much it is reset, and
    /// trailers are cut. The head of an HTTP/1.1 response has to fit hyper's read buffer, some 400
    /// KiB.
    #[must_use]
    pub fn max_header_size(mut self, max_header_size: u32) -> Self {
        self.settings.max_header_size = max_header_size;
        self
    }

    /// Bounds the number of headers of an HTTP/1.1 response. Defaults to 256; one with more is an
    /// error.
    #[must_use]
    pub fn max_http1_headers(mut self, max_headers: usize) -> Self {
        self.settings.max_http1_headers = max_headers;
        self
    }

    /// Bounds the time between two parts of a response body; above it, reading ends with
    /// [`HttpErrorKind::BodyTimeout`](crate::HttpErrorKind::BodyTimeout).
    ///
    /// Defaults to `None`: the bound of an attempt or a request covers the head of its response
    /// only, and a server that stalls in the middle of a body holds its reader for as long as it
    /// likes. Streams with silent periods need a bound above those.
    #[must_use]
    pub fn read_timeout(mut self, read_timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.read_timeout = read_timeout.into().map(bounded);
        self
    }

    /// Sends a ping on a silent HTTP/2 connection after this long, while requests wait on it.
    ///
    /// Defaults to 30 s, and under a gRPC factory to 5 min; `None` sends none. The requests on the
    /// connection of a peer that vanished would otherwise wait for a quarter of an hour. Streams
    /// that are silent for minutes need `None`, or 5 minutes and more, with gRPC servers: most of
    /// those close a connection with more frequent pings.
    #[must_use]
    pub fn keep_alive_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.settings.keep_alive_interval = Some(interval.into().map(bounded));
        self
    }

    /// Replaces the default of [`keep_alive_interval`](Self::keep_alive_interval), for factories
    /// above this one.
    #[must_use]
    pub fn default_keep_alive_interval(mut self, interval: Duration) -> Self {
        self.settings.keep_alive_interval.get_or_insert_with(|| Some(bounded(interval)));
        self
    }

    /// Closes a connection whose peer did not answer a ping within this time.
    ///
    /// Defaults to 10 s: a TCP peer under packet loss needs as long for its answer (RFC 6298: 1 +
    /// 2 + 4 s and some).
    #[must_use]
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.settings.keep_alive_timeout = bounded(timeout);
        self
    }

    /// Sets the `Host` header. Defaults to [`HostPolicy::Service`].
    #[must_use]
    pub fn host_policy(mut self, host: HostPolicy) -> Self {
        self.host = host;
        self
    }

    /// Puts a layer around each endpoint: a timeout, a limit of concurrent requests, a header.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower::timeout::TimeoutLayer;
    /// use tower_sd_http::HttpFactory;
    ///
    /// let factory = HttpFactory::<String>::new().layer(TimeoutLayer::new(Duration::from_secs(2)));
    /// ```
    #[must_use]
    pub fn layer<L>(self, layer: L) -> Layered<B, L> {
        Layered::new(self, layer)
    }
}
