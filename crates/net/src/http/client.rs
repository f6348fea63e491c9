use std::{fmt, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    Request, Response, Uri,
    uri::{Authority, Scheme},
};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioTimer};
use tower_sd_core::{Error, ErrorKind, Result, TaskGroup};

use super::{
    body::{HttpBody, failed},
    connect::{Connect, EndedBy, Owned, Settings},
    error::{HttpClientError, HttpClientErrorKind},
    versions::HttpVersions,
};
use crate::{Dialer, Target, TlsClient};

/// A client of one HTTP server, with a pool of connections.
///
/// Follows no redirects, reads no proxy variables, repeats no request that a server may have
/// read. Connections close when the last clone is dropped.
///
/// Several clients of one server have connections of their own: a call without a response then
/// costs no other kind of call its connection.
#[derive(Clone)]
pub struct HttpClient(Arc<Inner>);

struct Inner {
    pool: Client<Connect, Full<Bytes>>,
    scheme: Scheme,
    authority: Authority,
    server: Arc<str>,
    connect: Arc<Settings>,
    tasks: TaskGroup,
}

/// Settings of an [`HttpClient`].
#[derive(Clone, Debug)]
#[must_use = "builders do nothing unless built"]
pub struct HttpClientBuilder {
    target: Target,
    dialer: Dialer,
    tls: Option<TlsClient>,
    versions: HttpVersions,
}

impl HttpClient {
    /// Starts the settings of a client of `target`.
    pub fn builder(target: Target) -> HttpClientBuilder {
        HttpClientBuilder {
            target,
            dialer: Dialer::new(),
            tls: None,
            versions: HttpVersions::default(),
        }
    }

    /// Sends a request, and reads the whole response of any status.
    ///
    /// The request's URI has a path and query only. `timeout` bounds everything: the
    /// connection, the response with its body, of at most `max_body` bytes.
    ///
    /// # Errors
    ///
    /// No complete response; see [`HttpClientErrorKind`].
    ///
    /// # Cancel safety
    ///
    /// Dropped early, an HTTP/1.1 connection is closed and an HTTP/2 stream is reset. The server
    /// may have read the request.
    pub async fn send(
        &self,
        request: Request<Bytes>,
        timeout: Duration,
        max_body: usize,
    ) -> Result<Response<Bytes>, HttpClientError> {
        let whole = async {
            let (head, mut body) = self.0.respond(request).await?.into_parts();
            let body = body.collect(max_body).await?;
            Ok(Response::from_parts(head, body))
        };
        self.within(timeout, whole).await
    }

    /// Sends a request, and returns the response of any status before its body.
    ///
    /// The request's URI has a path and query only. `timeout` bounds the connection and the head
    /// of the response, and not its body. That ends with the last clone of the client.
    ///
    /// # Errors
    ///
    /// No response; see [`HttpClientErrorKind`].
    ///
    /// # Cancel safety
    ///
    /// As [`send`](Self::send).
    pub async fn stream(
        &self,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<HttpBody>, HttpClientError> {
        self.within(timeout, self.0.respond(request)).await
    }

    /// Closes all connections, whatever they carry, and waits until they are closed.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the connections still close; only the waiting is lost.
    pub async fn close(&self) {
        self.0.tasks.close().await;
    }

    async fn within<T>(
        &self,
        timeout: Duration,
        exchange: impl Future<Output = Result<T, HttpClientError>>,
    ) -> Result<T, HttpClientError> {
        match tokio::time::timeout(timeout, exchange).await {
            Ok(response) => response,
            Err(_) => Err(HttpClientError::timeout(&self.0.server, timeout)),
        }
    }
}

impl Inner {
    async fn respond(
        &self,
        request: Request<Bytes>,
    ) -> Result<Response<HttpBody>, HttpClientError> {
        let request = self.addressed(request)?;
        let response = self.pool.request(request).await.map_err(|cause| {
            let ended_by = EndedBy::of(cause.connect_info());
            failed(&self.connect, &self.server, HttpClientErrorKind::Closed, ended_by, cause)
        })?;
        let (head, body) = response.into_parts();
        let (server, settings) = (Arc::clone(&self.server), Arc::clone(&self.connect));
        let body = HttpBody { server, settings, extensions: head.extensions.clone(), body };
        Ok(Response::from_parts(head, body))
    }

    fn addressed(&self, request: Request<Bytes>) -> Result<Request<Full<Bytes>>, HttpClientError> {
        let (mut head, body) = request.into_parts();
        let mut parts = std::mem::take(&mut head.uri).into_parts();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        head.uri = Uri::from_parts(parts).map_err(|cause| {
            HttpClientError::new(HttpClientErrorKind::Request, &self.server).with_source(cause)
        })?;
        Ok(Request::from_parts(head, Full::new(body)))
    }
}

impl HttpClientBuilder {
    /// Sets the dialer. Defaults to [`Dialer::new`].
    pub fn dialer(self, dialer: Dialer) -> Self {
        Self { dialer, ..self }
    }

    /// Sets the TLS of all connections. Defaults to none.
    pub fn tls(self, tls: impl Into<Option<TlsClient>>) -> Self {
        Self { tls: tls.into(), ..self }
    }

    /// Sets the HTTP versions. Defaults to [`HttpVersions::Http2OrHttp1`].
    pub fn versions(self, versions: HttpVersions) -> Self {
        Self { versions, ..self }
    }

    /// Builds the client, which connects to nothing yet.
    ///
    /// # Errors
    ///
    /// `Config` for a host that cannot be in a URL.
    pub fn build(self) -> Result<HttpClient> {
        let Self { target, dialer, tls, versions } = self;
        let server: Arc<str> = target.to_string().into();
        let authority = Authority::try_from(target.authority()).map_err(|cause| {
            let message = format!("{server:?} is no host and port");
            Error::new(ErrorKind::Config, "http", "configure")
                .with_message(message)
                .with_source(cause)
        })?;
        let scheme = if tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let tasks = TaskGroup::new();
        let connect = Arc::new(Settings { dialer, target, tls, versions });
        let pool = Client::builder(Owned(tasks.clone()))
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .build(Connect(Arc::clone(&connect)));
        let inner = Inner { pool, scheme, authority, server, connect, tasks };
        Ok(HttpClient(Arc::new(inner)))
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("server", &self.0.server).finish_non_exhaustive()
    }
}

/// A connection of many streams does not end with one that gets no response: pings find out.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
