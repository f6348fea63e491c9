//! The setters of [`HttpFactory`].

use std::time::Duration;

use super::HttpFactory;
use crate::{HostPolicy, HttpVersion, pool::bounded};

impl<B> HttpFactory<B> {
    /// Bounds the time of a connect, name resolution and TLS included.
    ///
    /// Defaults to 1 s: the first lost packet costs that long (RFC 6298), and another instance
    /// answers sooner. For a longer one, raise the endpointer's
    /// [`connect_timeout`](tower_sd_balance::EndpointerConfig::connect_timeout) and the balancer's
    /// [`ready_timeout`](tower_sd_balance::BalanceLayer::ready_timeout) with it: after these, 1 s
    /// each by default, the instance is down and the request has failed.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = bounded(timeout);
        self
    }

    /// Closes a connection that carried nothing for this time.
    ///
    /// Over HTTP/1.1 a server that announces a shorter time (`Keep-Alive: timeout=5`) is obeyed,
    /// with a margin of up to 1 s: a request that crosses the server's close fails. Defaults to 30
    /// s, below the 60 s and more that most servers grant. Over HTTP/1.1 without an announcement it
    /// defaults to 4 s, below the 5 s of Node.js, uvicorn and Apache httpd; a time that is set here
    /// replaces both.
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.settings.idle_timeout = Some(bounded(idle_timeout));
        self
    }

    /// Ends a connection of this age.
    ///
    /// It takes no new request, and closes when it carries none. Thus rotated certificates reach
    /// connections that are always busy, and the new backends behind a virtual IP get requests.
    /// Each connection ends up to a tenth of the time earlier, by chance. Defaults to 10 min;
    /// `None` never.
    pub fn max_age(mut self, max_age: impl Into<Option<Duration>>) -> Self {
        self.settings.max_age = max_age.into().map(bounded);
        self
    }

    /// Bounds the idle HTTP/1.1 connections per instance.
    ///
    /// 0 makes a connection per request. Defaults to no bound but that of all connections. The
    /// surplus of a burst closes by its [`idle_timeout`](Self::idle_timeout), and serves the next
    /// burst until then.
    pub fn max_idle(mut self, max_idle: usize) -> Self {
        self.settings.max_idle = max_idle;
        self
    }

    /// Sets the version of HTTP.
    ///
    /// Defaults to [`HttpVersion::Auto`]: HTTP/1.1 without TLS, and over TLS the server's choice.
    pub fn version(mut self, protocol: HttpVersion) -> Self {
        self.settings.protocol = protocol;
        self
    }

    /// Bounds the connections to an instance of HTTP/1.1.
    ///
    /// Each carries one request at a time. At least 1, defaults to 1000: an instance with a
    /// thousand requests of one client is overloaded, and a process may open 1024 files by default.
    /// When all are busy, requests wait for one in `poll_ready`, first come, first served.
    pub fn max_http1_connections(mut self, max_connections: usize) -> Self {
        self.settings.max_http1_connections = max_connections.max(1);
        self
    }

    /// Bounds the connections to an instance of HTTP/2.
    ///
    /// At least 1, defaults to 8: with the 100 requests that most servers grant a connection, more
    /// than one instance usually bears. Another connection is opened when all are full. At the
    /// bound, requests wait for a place in `poll_ready`, first come, first served.
    pub fn max_http2_connections(mut self, max_connections: usize) -> Self {
        self.settings.max_http2_connections = max_connections.max(1);
        self
    }

    /// Bounds the concurrent requests on one HTTP/2 connection.
    ///
    /// The server's grant is a further bound. At least 1, defaults to 1000. Many servers grant any
    /// number; a lost packet then delays them all, and one task serves them.
    pub fn max_streams(mut self, max_streams: usize) -> Self {
        self.settings.max_streams = max_streams.max(1);
        self
    }

    /// Bounds the headers and the trailers of an HTTP/2 response, in bytes.
    ///
    /// Counted as in RFC 9113 §6.5.2. Defaults to 1 MiB. A response above it is an error that names
    /// size and status, see [`HeadersTooLarge`](crate::HeadersTooLarge). Above four times as much
    /// it is reset, and trailers are cut. The head of an HTTP/1.1 response must fit hyper's read
    /// buffer, some 400 KiB.
    pub fn max_header_size(mut self, max_header_size: u32) -> Self {
        self.settings.max_header_size = max_header_size;
        self
    }

    /// Bounds the number of headers of an HTTP/1.1 response.
    ///
    /// Defaults to 100, as in hyper; a response with more is an error. Any bound that is set here,
    /// whatever its value, allocates 64 bytes a header for every response: some 5 % of a call with
    /// a bound of 256.
    pub fn max_http1_headers(mut self, max_headers: usize) -> Self {
        self.settings.max_http1_headers = Some(max_headers);
        self
    }

    /// Bounds the time between two parts of a response body.
    ///
    /// Above it, reading ends with
    /// [`HttpErrorKind::BodyTimeout`](crate::HttpErrorKind::BodyTimeout). Defaults to `None`: the
    /// bound of an attempt or a request covers the head of its response only. A server that stalls
    /// amid a body then holds its reader without bound. Streams with silent periods need a bound
    /// above those.
    pub fn read_timeout(mut self, read_timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.read_timeout = read_timeout.into().map(bounded);
        self
    }

    /// Sends pings on an HTTP/2 connection that is silent under requests.
    ///
    /// Defaults to 30 s, and under a gRPC factory to 5 min; `None` sends none. Requests to a peer
    /// that vanished would otherwise wait for the user timeout of TCP. Streams that are silent for
    /// minutes need `None`, or 5 min and more, with gRPC servers: most of those close a connection
    /// with more frequent pings.
    pub fn keep_alive_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.settings.keep_alive_interval = Some(interval.into().map(bounded));
        self
    }

    /// Replaces the default of [`keep_alive_interval`](Self::keep_alive_interval).
    ///
    /// For factories above this one.
    pub fn default_keep_alive_interval(mut self, interval: Duration) -> Self {
        self.settings.keep_alive_interval.get_or_insert_with(|| Some(bounded(interval)));
        self
    }

    /// Closes a connection whose peer did not answer a ping within this time.
    ///
    /// Defaults to 10 s: a TCP peer under packet loss needs as long for its answer (RFC 6298: 1 +
    /// 2 + 4 s and some).
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.settings.keep_alive_timeout = bounded(timeout);
        self
    }

    /// Sets the `Host` header. Defaults to [`HostPolicy::Service`].
    pub fn host_policy(self, host: HostPolicy) -> Self {
        Self { host, ..self }
    }
}
