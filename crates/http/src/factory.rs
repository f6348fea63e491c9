use std::{fmt, marker::PhantomData, time::Duration};

use http::uri::Authority;
use tokio::sync::Semaphore;
use tower_sd::{BoxError, Error, ErrorKind, Factory, Instance};
use tower_sd_core::Tasks;

use crate::{
    HostPolicy, HttpEndpoint, Layered, Protocol, ToBody,
    pool::{Pool, Settings, Target},
    tls::Secured,
};

/// Makes an [`HttpEndpoint`] of each instance: HTTP/1.1 or HTTP/2, over TCP or TLS.
///
/// Hand it to an `Endpointer`. Generic in the request body, which the first request decides; clones share everything,
/// so keep one to [`close`](Self::close) it.
///
/// ```
/// use std::time::Duration;
/// use tower_sd_http::{HostPolicy, HttpFactory};
///
/// let factory: HttpFactory<String> = HttpFactory::new()
///     .connect_timeout(Duration::from_millis(300))
///     .host(HostPolicy::Instance);
/// ```
pub struct HttpFactory<B> {
    settings: Settings,
    host: HostPolicy,
    secured: Option<Secured>,
    tasks: Tasks,
    body: PhantomData<fn(B)>,
}

impl<B> HttpFactory<B> {
    /// A factory with the defaults that its setters name.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bounds how long an instance may take to accept a connection, name resolution included. Default 1 s: the first
    /// lost packet costs that long (RFC 6298), and another instance answers sooner.
    #[must_use]
    pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.settings.connect_timeout = connect_timeout;
        self
    }

    /// Closes a connection that carried nothing for this long. Default 30 s, below the 60 s and more that most servers
    /// grant, so that we close first.
    #[must_use]
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.settings.idle_timeout = idle_timeout;
        self
    }

    /// Bounds the idle connections kept per instance; 0 makes a connection per request. Default 100.
    #[must_use]
    pub fn max_idle(mut self, max_idle: usize) -> Self {
        self.settings.max_idle = max_idle;
        self
    }

    /// Says which HTTP is spoken. Default [`Protocol::Auto`]: HTTP/1.1 without TLS, and over TLS what the
    /// server chooses.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.settings.protocol = protocol;
        self
    }

    /// Bounds the connections to an instance that speaks HTTP/1.1, of which each carries one request at a time; at least 1,
    /// default 1000. When all are busy, requests wait for one in `poll_ready`, first come, first served. An instance that
    /// has a thousand requests of one client does not keep up, and a process may open 1024 files by default.
    #[must_use]
    pub fn max_http1_connections(mut self, max_connections: usize) -> Self {
        self.settings.max_http1_connections = max_connections.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// Bounds the connections to an instance that speaks HTTP/2; at least 1, default 8. Another one is opened when all
    /// are full; when there may be no other, requests wait for a place in `poll_ready`. With the 100 requests that most
    /// servers grant a connection, 8 are more than one instance usually bears, and a burst's surplus closes when idle.
    #[must_use]
    pub fn max_connections(mut self, max_connections: usize) -> Self {
        self.settings.max_connections = max_connections.max(1);
        self
    }

    /// Bounds the requests at a time on one HTTP/2 connection, below what the server grants; at least 1, default 1000.
    /// Many servers grant any number; a lost packet then delays them all, and one task serves them.
    #[must_use]
    pub fn max_streams(mut self, max_streams: usize) -> Self {
        self.settings.max_streams = max_streams.max(1);
        self
    }

    /// Asks a silent HTTP/2 connection for a sign of life after this long, while requests wait on it. Default 30 s;
    /// `None` never asks.
    ///
    /// A peer that vanished without a word is noticed by nothing else for a quarter of an hour, and all its requests
    /// wait on the one connection. Streams that are silent for minutes need `None`, or 5 minutes and more, with gRPC
    /// servers: most of those close a connection that asks more often.
    #[must_use]
    pub fn keep_alive_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.settings.keep_alive_interval = interval.into();
        self
    }

    /// Closes a connection whose peer gave no sign of life for this long after it was asked. Default 10 s: as long as a
    /// TCP peer under packet loss needs for its answer (RFC 6298: 1 + 2 + 4 s and some).
    #[must_use]
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.settings.keep_alive_timeout = timeout;
        self
    }

    /// Says what the `Host` header is. Default [`HostPolicy::Service`].
    #[must_use]
    pub fn host(mut self, host: HostPolicy) -> Self {
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
    /// let factory = HttpFactory::<String>::new().layered(TimeoutLayer::new(Duration::from_secs(2)));
    /// ```
    #[must_use]
    pub fn layered<L>(self, layer: L) -> Layered<B, L> {
        Layered::new(self, layer)
    }

    /// Closes the connections of every endpoint it made, whatever they carry, and waits until they are.
    ///
    /// Not needed for cleaning up: connections close with their endpoints. Needed to know that they have.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the connections still close; only the waiting is lost.
    pub async fn close(&self) {
        self.tasks.close().await;
    }
}

impl<B> HttpFactory<B> {
    #[cfg(feature = "tls")]
    pub(crate) fn secured(mut self, secured: Option<Secured>) -> Self {
        self.secured = secured;
        self
    }
}

impl<B: Send + 'static> HttpFactory<B> {
    /// Connects to nothing yet.
    pub(crate) fn endpoint(&self, instance: &Instance) -> Result<HttpEndpoint<B>, BoxError> {
        let scheme_is_ours = match instance.scheme() {
            None => true,
            Some("http") => self.secured.is_none(),
            Some("https") => self.secured.is_some(),
            Some(_) => false,
        };
        if !scheme_is_ours {
            let ours = if self.secured.is_some() { "https" } else { "http" };
            let theirs = instance.scheme().unwrap_or_default();
            let message = format!("speaks {ours}, and the instance wants {theirs}");
            return Err(refused(instance, message).into());
        }
        let address = instance.to_string();
        let authority = Authority::try_from(address.as_str())
            .map_err(|error| refused(instance, "its host is no host").with_source(error))?;
        let target = Target {
            host: instance.host().to_owned(),
            port: instance.port(),
            address: address.into(),
            authority,
            host_policy: self.host,
            secured: self.secured.clone(),
        };
        Ok(HttpEndpoint::new(Pool::new(target, self.settings, self.tasks.clone())))
    }
}

impl<B: Send + 'static> Factory for HttpFactory<B> {
    type Service = HttpEndpoint<B>;
    type Hold = ToBody;

    async fn make(&self, instance: Instance) -> Result<HttpEndpoint<B>, BoxError> {
        self.endpoint(&instance)
    }
}

fn refused(instance: &Instance, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, "http", "endpoint")
        .with_instance(instance.id().clone())
        .with_message(message)
}

impl<B> Clone for HttpFactory<B> {
    fn clone(&self) -> Self {
        Self {
            settings: self.settings,
            host: self.host,
            secured: self.secured.clone(),
            tasks: self.tasks.clone(),
            body: PhantomData,
        }
    }
}

impl<B> Default for HttpFactory<B> {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            host: HostPolicy::default(),
            secured: None,
            tasks: Tasks::new(),
            body: PhantomData,
        }
    }
}

impl<B> fmt::Debug for HttpFactory<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpFactory")
            .field("settings", &self.settings)
            .field("host", &self.host)
            .field("secured", &self.secured)
            .finish_non_exhaustive()
    }
}
