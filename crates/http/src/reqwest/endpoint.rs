use std::{
    fmt,
    future::Future,
    mem,
    net::IpAddr,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ::reqwest::{Body, Client, ClientBuilder, Request, Response, Url, redirect::Policy};
use http::{HeaderValue, StatusCode, header::HOST};
use tower_sd_balance::{
    BoxError, Error, ErrorKind, Factory, InFlight, Instance, Outcome, Protocol, Verdict, causes,
};
use tower_service::Service;

use super::hold::hold;
use crate::{
    HttpError, HttpErrorKind, HttpProtocol,
    deadline::header,
    exchange::is_refused,
    hold::Unanswered,
    pool::{Outgoing, Upload, framing},
    protocol::{outcome_of, retry_after},
};

/// Makes a [`ReqwestEndpoint`] of each instance, over a [`Client`] of yours.
///
/// The client's settings hold: its cookies, its redirects, its timeouts. Some fit badly and are
/// worth a look:
///
/// - Give it a `connect_timeout`, below the per-try timeout of a `Retry`. reqwest connects when it
///   has the request already, so a dead instance costs an attempt; one that ends by the per-try
///   timeout counts as sent.
/// - Switch off redirects, by [`build`](Self::build) or with a word to
///   [`without_redirects`](Self::without_redirects). Then a refused connect counts as unsent, and
///   `Retry` with [`HttpProtocol`] sends the request to another instance whatever its method. A
///   client that follows redirects may have connected to another place after the instance served
///   the request, and its error is the same: such a request counts as sent. Redirects can be
///   followed above the balancer.
/// - Give it a `read_timeout`, which alone ends a body that stalls, and a `pool_idle_timeout` below
///   that of the servers (5 s in Node and Apache): a request must not cross their close.
/// - Host names of instances are resolved by it. An [`InstanceResolver`](super::InstanceResolver)
///   with [`check_all_names`](super::InstanceResolver::check_all_names) refuses denied addresses.
/// - Its connections have no maximum age: one that is never idle meets neither a rotated
///   certificate nor a new machine behind the same address.
/// - Switch off its own retries (`retry(reqwest::retry::never())`) and, unless instances are behind
///   one, its proxy (`no_proxy()`).
/// - With https a certificate is checked for the instance's host, not for the service's name; with
///   `http2_prior_knowledge` servers see the instance's host too, and a `Host` header beside it.
///   [`HttpFactory`](crate::HttpFactory) has neither limit.
///
/// ```no_run
/// use std::time::Duration;
/// use reqwest::Client;
/// use tower::ServiceBuilder;
/// use tower_sd::balance::{BalanceLayer, RoundRobin};
/// use tower_sd::endpoint::Endpointer;
/// use tower_sd::http::HttpProtocol;
/// use tower_sd::retry::{RetryLayer, RetryPolicy};
/// use tower_sd::{FixedInstancer, Instance, reqwest::ReqwestFactory};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let instancer = FixedInstancer::new([Instance::new("127.0.0.1", 8081)]);
/// let client = Client::builder().connect_timeout(Duration::from_secs(1)).no_proxy();
/// let factory = ReqwestFactory::build(client)?;
/// let client = factory.client().clone();
/// let arithmetic = ServiceBuilder::new()
///     .layer(RetryLayer::new(RetryPolicy::new().protocol(HttpProtocol::new())))
///     .layer(BalanceLayer::new(RoundRobin::new()))
///     .service(Endpointer::new(&instancer, factory));
/// let request = client.get("http://arithmetic/health").build()?;
/// // arithmetic.ready().await?.call(request).await? is a `reqwest::Response`.
/// # drop((arithmetic, request));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ReqwestFactory {
    client: Client,
    follows_redirects: bool,
    unix: Option<Arc<UnixClient>>,
}

/// Makes the client of a unix socket.
type UnixClient = dyn Fn(&Path) -> ::reqwest::Result<Client> + Send + Sync;

/// One instance, called by a [`Client`].
///
/// The URL's host and port become the instance's; `http://service/path` keeps `service` in its
/// `Host` header, unless the request brings its own. The scheme becomes `https` where the
/// instance's is; a request for `https` to an instance of `http` is an error.
#[derive(Clone)]
pub struct ReqwestEndpoint {
    client: Client,
    follows_redirects: bool,
    target: Arc<Target>,
}

/// The future response of a [`ReqwestEndpoint`].
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture(Pin<Box<dyn Future<Output = Result<Response, HttpError>> + Send>>);

struct Target {
    address: Arc<str>,
    instance: Instance,
}

impl ReqwestFactory {
    /// Over `client`, which may follow redirects.
    ///
    /// All endpoints share its connections.
    pub fn new(client: Client) -> Self {
        Self { client, follows_redirects: true, unix: None }
    }

    /// Over a client of `builder` that follows no redirects and repeats no requests.
    ///
    /// # Errors
    ///
    /// Those of [`ClientBuilder::build`].
    pub fn build(builder: ClientBuilder) -> ::reqwest::Result<Self> {
        let builder = builder.redirect(Policy::none()).retry(::reqwest::retry::never());
        Ok(Self::new(builder.build()?).without_redirects())
    }

    /// Declares that the client has `redirect(Policy::none())`.
    ///
    /// Only then a failed connect proves that nothing was sent.
    #[must_use]
    pub fn without_redirects(self) -> Self {
        Self { follows_redirects: false, ..self }
    }

    /// Takes instances with the host `unix:/path`, each with a client of its own.
    ///
    /// A client of reqwest connects to one unix socket for all of its requests, or to none. `make`
    /// builds one for a path, with the settings of the other.
    ///
    /// ```
    /// # #[cfg(unix)]
    /// # fn example() -> reqwest::Result<()> {
    /// use reqwest::{Client, redirect::Policy, retry};
    /// use tower_sd::reqwest::ReqwestFactory;
    ///
    /// let builder = || Client::builder().redirect(Policy::none()).retry(retry::never());
    /// let factory = ReqwestFactory::build(builder())?
    ///     .unix_sockets(move |path| builder().unix_socket(path).build());
    /// # drop(factory);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn unix_sockets<F>(mut self, make: F) -> Self
    where
        F: Fn(&Path) -> ::reqwest::Result<Client> + Send + Sync + 'static,
    {
        self.unix = Some(Arc::new(make));
        self
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Factory for ReqwestFactory {
    type Service = ReqwestEndpoint;

    async fn make(&self, instance: Instance) -> Result<ReqwestEndpoint, BoxError> {
        let scheme = instance.scheme().unwrap_or("http").to_ascii_lowercase();
        let address = Arc::from(instance.to_string());
        let client = match (instance.host().strip_prefix("unix:"), &self.unix) {
            (Some(path), Some(make)) => Some(make(Path::new(path))?),
            _ if is_authority(&address, instance.host()) => Some(self.client.clone()),
            _ => None,
        };
        let client = client.filter(|_| matches!(scheme.as_str(), "http" | "https"));
        let Some(client) = client else {
            let refused = Error::new(ErrorKind::Config, "reqwest", "endpoint")
                .with_instance(instance.id().clone())
                .with_message(format!("{scheme}://{address} is no address for HTTP"));
            return Err(refused.into());
        };
        let target = Arc::new(Target { address, instance });
        InFlight::enable();
        Ok(ReqwestEndpoint { client, follows_redirects: self.follows_redirects, target })
    }
}

/// Returns whether reqwest connects to exactly this address.
///
/// A Unix socket's reads as a host "unix" and a path, to which the request would go; a number of
/// any script as an IPv4 address, which no policy has seen.
fn is_authority(address: &str, host: &str) -> bool {
    let is_ip = |host: &str| host.parse::<IpAddr>().is_ok();
    Url::parse(&format!("http://{address}")).is_ok_and(|url| {
        let read = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        is_ip(read) == is_ip(host)
            && url.path() == "/"
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    })
}

impl Service<Request> for ReqwestEndpoint {
    type Response = Response;
    type Error = HttpError;
    type Future = ResponseFuture;

    /// Always ready: reqwest connects when it has the request.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> ResponseFuture {
        let lease = InFlight::take();
        if let Err(error) = self.target.address(&mut request) {
            let address = Arc::clone(&self.target.address);
            let held = Unanswered { lease, upload: None };
            return ResponseFuture(Box::pin(async move { hold(Err(error), held, &address) }));
        }
        if let Some(at) = lease.as_ref().and_then(InFlight::head_deadline) {
            header::write(request.headers_mut(), at);
        }
        if let Some((name, value)) = framing(request.method(), request.headers(), request.body()) {
            request.headers_mut().insert(name, value);
        }
        let upload = observe_body(&mut request);
        let exchange = self.client.execute(request);
        let held = Unanswered { lease, upload };
        let target = Arc::clone(&self.target);
        let is_first_hop = !self.follows_redirects;
        ResponseFuture(Box::pin(async move {
            let result = exchange.await.map_err(|error| {
                let kind = match held.upload.as_ref() {
                    Some(upload) if upload.has_failed() => HttpErrorKind::Request,
                    _ if error.is_connect() && is_first_hop => HttpErrorKind::Connect,
                    _ if error.is_builder() => HttpErrorKind::Request,
                    _ if is_unsent(&error) && is_first_hop => HttpErrorKind::NotSent,
                    _ if error.is_timeout() => HttpErrorKind::Timeout,
                    _ => HttpErrorKind::Io,
                };
                // Its query may have secrets.
                HttpError::new(kind, &target.address, error.without_url())
            });
            hold(result, held, &target.address)
        }))
    }
}

/// Whether the connection closed before the request was written to it, or the server reports that
/// it has not read it. hyper cancels only what it returns.
fn is_unsent(error: &::reqwest::Error) -> bool {
    causes(error)
        .filter_map(|error| error.downcast_ref::<hyper::Error>())
        .any(|error| error.is_canceled() || is_refused(error))
}

/// A handle of the body, if it streams: one that fails is a failure of its sender.
fn observe_body(request: &mut Request) -> Option<Upload> {
    let body = request.body_mut().as_mut().filter(|body| body.as_bytes().is_none())?;
    let body = mem::take(body);
    let (outgoing, upload) = Outgoing::new(body, request.headers());
    *request.body_mut() = Some(Body::wrap(outgoing));
    upload
}

impl Target {
    fn address(&self, request: &mut Request) -> Result<(), HttpError> {
        let named = match request.url().port() {
            Some(port) => request.url().host_str().map(|host| format!("{host}:{port}")),
            None => request.url().host_str().map(str::to_owned),
        };
        let is_secured = request.url().scheme() == "https";
        match self.instance.scheme() {
            Some(scheme) if scheme.eq_ignore_ascii_case("http") && is_secured => {
                let error = "the scheme of the instance is http";
                return Err(HttpError::new(HttpErrorKind::TlsRequired, &self.address, error));
            }
            // Between the two it always succeeds, as it does for hosts and ports that were parsed
            // once.
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => {
                request.url_mut().set_scheme("https").unwrap_or_default();
            }
            _ => {}
        }
        let host = self.instance.host();
        if host.starts_with("unix:") {
            // The client connects to the socket whatever the URL.
            return Ok(());
        }
        let url = request.url_mut();
        match host.parse::<IpAddr>() {
            Ok(ip) => url.set_ip_host(ip).unwrap_or_default(),
            Err(_) => url.set_host(Some(host)).unwrap_or_default(),
        }
        url.set_port(Some(self.instance.port())).unwrap_or_default();
        let is_secured = url.scheme() == "https";
        let named = named.and_then(|host| HeaderValue::try_from(host).ok());
        // Over HTTP/2, which TLS may lead to, a second name beside the `:authority` is at best
        // ignored.
        if let Some(host) = named.filter(|_| !is_secured) {
            request.headers_mut().entry(HOST).or_insert(host);
        }
        Ok(())
    }
}

/// Bodies that stream cannot be repeated: `try_clone` returns `None` for them.
impl Protocol<Request, Response> for HttpProtocol {
    fn copy(&self, request: &Request) -> Option<Request> {
        request.try_clone()
    }

    fn is_idempotent(&self, request: &Request) -> bool {
        self.repeats(request.method())
    }

    fn outcome(&self, result: Result<&Response, &BoxError>) -> Outcome {
        outcome_of(result.map(Response::status))
    }

    fn verdict(&self, result: Result<&Response, &BoxError>) -> Verdict {
        self.verdict_of(result.map(|response| (response.status(), response.headers())))
    }

    fn is_rejection(&self, response: &Response) -> bool {
        response.status() == StatusCode::TOO_MANY_REQUESTS
    }

    fn pause(&self, response: &Response) -> Option<Duration> {
        retry_after(response.headers())
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response, HttpError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ReqwestFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestFactory").field("client", &self.client).finish_non_exhaustive()
    }
}

impl fmt::Debug for ReqwestEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestEndpoint").field("address", &self.target.address).finish()
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
