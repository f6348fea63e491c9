use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use ::reqwest::{Client, ClientBuilder, Request, RequestBuilder, Response};
use http::uri::Authority;
use pin_project::pin_project;
use tower::timeout::TimeoutLayer;
use tower_layer::Layer;
use tower_sd_balance::{
    Balance, BalanceLayer, Balancer, Endpointer, EndpointerConfig, EndpointerReport, Instancer,
    NoInstances, Retry, RetryFuture, RetryLayer, RetryPolicy,
};
use tower_service::Service;

use super::{InstanceResolver, ReqwestEndpoint, ReqwestFactory};
use crate::{
    ClientError, HttpProtocol,
    client::{PER_TRY_TIMEOUT, READ_TIMEOUT, TIMEOUT},
};

/// A balanced client of one service over a `reqwest::Client`, with retries.
///
/// It is a `tower::Service<reqwest::Request>`. Its defaults are those of [`Client`](crate::Client).
/// Three things differ: reqwest connects when it has the request, so that a dead instance costs an
/// attempt; a streamed body is never repeated; and a connection has no maximum age, so that one
/// which is never idle meets neither a rotated certificate nor a new machine behind its address.
///
/// The inner client follows no redirects and repeats nothing by itself, see
/// [`ReqwestFactory::build`]: a redirect is the caller's response, and a POST arrives at most once.
///
/// ```no_run
/// use tower_sd::{FixedInstancer, Instance, reqwest::ReqwestClient};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let orders = ReqwestClient::new(FixedInstancer::new([Instance::new("127.0.0.1", 8081)]))?;
/// let response = orders.send(orders.client().get("http://orders/health")).await?;
/// println!("{}", response.status());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ReqwestClient {
    client: Client,
    stack: Retry<Balance<ReqwestEndpoint>, HttpProtocol>,
    endpointer: Endpointer<ReqwestEndpoint>,
}

/// The settings of a [`ReqwestClient`].
///
/// Each setter changes one setting; the others keep their values.
#[must_use = "a builder does nothing until it is built"]
pub struct ReqwestClientBuilder {
    instancer: Box<dyn Instancer>,
    client: ClientBuilder,
    endpointer: EndpointerConfig,
    balance: BalanceLayer,
    ready_timeout: Option<Duration>,
    retry: RetryPolicy<HttpProtocol>,
}

/// The future response of a [`ReqwestClient`].
///
/// # Cancel safety
///
/// Dropped, the attempt in flight is cancelled. The server may have received the request.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct ReqwestFuture {
    service: Option<Authority>,
    #[pin]
    inner: RetryFuture<Balance<ReqwestEndpoint>, HttpProtocol, Request>,
}

impl ReqwestClient {
    /// A client of the service that `instancer` follows, with the defaults.
    ///
    /// # Errors
    ///
    /// Those of [`ClientBuilder::build`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime: it starts the task that follows the instances.
    pub fn new(instancer: impl Instancer) -> ::reqwest::Result<Self> {
        Self::builder(instancer).build()
    }

    /// Settings for a client of the service that `instancer` follows.
    pub fn builder(instancer: impl Instancer) -> ReqwestClientBuilder {
        ReqwestClientBuilder {
            instancer: Box::new(instancer),
            client: Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(READ_TIMEOUT)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .dns_resolver(Arc::new(InstanceResolver::new().check_all_names()))
                .no_proxy(),
            endpointer: EndpointerConfig::new(),
            balance: BalanceLayer::default(),
            ready_timeout: None,
            retry: RetryPolicy::new()
                .protocol(HttpProtocol::new())
                .default_timeouts(PER_TRY_TIMEOUT, TIMEOUT),
        }
    }

    /// The inner client, for building requests: `client.get(url)`.
    ///
    /// A request that is sent by it alone is not balanced.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a request.
    ///
    /// The host of its URL is the name of the service; an instance replaces host and port.
    pub fn execute(&self, request: Request) -> ReqwestFuture {
        let service = request.url().authority();
        let service = service.rsplit_once('@').map_or(service, |(_, service)| service);
        let service = Authority::try_from(service).ok();
        ReqwestFuture { service, inner: self.stack.clone().call(request) }
    }

    /// Builds a request and sends it.
    ///
    /// # Errors
    ///
    /// A request that cannot be built, or none that was answered.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the attempt in flight is cancelled. The server may have received the request.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let request =
            request.build().map_err(|error| ClientError::new(None, error.without_url().into()))?;
        self.execute(request).await
    }

    /// Waits until there is an instance that is not known to be down.
    ///
    /// It waits at most for `timeout`.
    ///
    /// # Errors
    ///
    /// Why there is none.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait_until_ready(&self, timeout: Duration) -> Result<(), NoInstances> {
        self.endpointer.ready(timeout).await
    }

    /// The state of every endpoint now. Costs a walk over all of them.
    pub fn report(&self) -> EndpointerReport {
        self.endpointer.report()
    }

    /// Stops following, and waits until the requests in flight have ended.
    ///
    /// It sends no more requests, and waits at most for the endpointer's
    /// [`drain_timeout`](EndpointerConfig::drain_timeout). Repeated, it does nothing. Connections
    /// close with the last clone of the inner client.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, only the waiting is lost.
    pub async fn close(&self) {
        self.endpointer.close().await;
    }
}

impl ReqwestClientBuilder {
    /// Sets the algorithm that picks an instance.
    ///
    /// Defaults to [`LeastLoaded`](tower_sd_balance::LeastLoaded).
    pub fn balancer(self, balancer: impl Balancer) -> Self {
        Self { balance: BalanceLayer::new(balancer), ..self }
    }

    /// Bounds how long a request waits for an instance that takes it.
    ///
    /// Defaults to 1 s, see [`BalanceLayer::ready_timeout`].
    pub fn ready_timeout(self, ready_timeout: Duration) -> Self {
        Self { ready_timeout: Some(ready_timeout), ..self }
    }

    /// Bounds a whole request, up to the head of its response. Defaults to 15 s.
    ///
    /// It covers all attempts and the pauses between them.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { retry: self.retry.timeout_to_head(timeout), ..self }
    }

    /// Bounds one attempt, up to the head of its response. Defaults to 5 s.
    ///
    /// It begins when an instance has the request.
    pub fn per_try_timeout(self, per_try_timeout: Duration) -> Self {
        Self { retry: self.retry.per_try_timeout(per_try_timeout), ..self }
    }

    /// Changes the retry policy; defaults as in [`Client`](crate::Client).
    pub fn retry(
        self,
        change: impl FnOnce(RetryPolicy<HttpProtocol>) -> RetryPolicy<HttpProtocol>,
    ) -> Self {
        Self { retry: change(self.retry), ..self }
    }

    /// Changes the inner client.
    ///
    /// Defaults to a connect timeout of 1 s, no proxy, and:
    ///
    /// - a read timeout of 5 min, which bounds the wait for the head of a response too;
    /// - connections that are closed after 4 s without use;
    /// - the policy for addresses of host names that [`HttpFactory`](crate::HttpFactory) has, see
    ///   [`check_all_names`](InstanceResolver::check_all_names).
    ///
    /// A builder that replaces it has none of these. Redirects and its own retries are always off.
    /// A connect has two thirds of the per-try timeout at most, so that it fails as one, and the
    /// request is sent to another instance whatever its method.
    pub fn client(self, change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Self {
        Self { client: change(self.client), ..self }
    }

    /// Sets how endpoints are created, probed and drained.
    pub fn endpointer(self, config: EndpointerConfig) -> Self {
        Self { endpointer: config, ..self }
    }

    /// The client.
    ///
    /// # Errors
    ///
    /// Those of [`ClientBuilder::build`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime: it starts the task that follows the instances. And when
    /// the per-try timeout is above the timeout, see
    /// [`RetryPolicy::check`](tower_sd_balance::RetryPolicy::check).
    pub fn build(self) -> ::reqwest::Result<ReqwestClient> {
        let client = match self.retry.per_try() {
            Some(per_try) => {
                self.client.connector_layer(TimeoutLayer::new(per_try.mul_f64(2.0 / 3.0)))
            }
            None => self.client,
        };
        let factory = ReqwestFactory::build(client)?;
        let client = factory.client().clone();
        let endpointer = Endpointer::with_config(&self.instancer, factory, self.endpointer);
        let balance = match self.ready_timeout {
            Some(ready_timeout) => self.balance.ready_timeout(ready_timeout),
            None => self.balance,
        };
        let balance = balance.layer(endpointer.clone());
        let stack = RetryLayer::new(self.retry).layer(balance);
        Ok(ReqwestClient { client, stack, endpointer })
    }
}

impl Service<Request> for ReqwestClient {
    type Response = Response;
    type Error = ClientError;
    type Future = ReqwestFuture;

    /// Always ready: an instance is picked when there is a request.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> ReqwestFuture {
        self.execute(request)
    }
}

impl Future for ReqwestFuture {
    type Output = Result<Response, ClientError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        Poll::Ready(result.map_err(|error| ClientError::new(this.service.take(), error)))
    }
}

impl fmt::Debug for ReqwestClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestClientBuilder")
            .field("client", &self.client)
            .field("endpointer", &self.endpointer)
            .field("balance", &self.balance)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ReqwestFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestFuture").finish_non_exhaustive()
    }
}

/// A lost packet of the first handshake costs as long (RFC 6298).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Below the 5 s of Node, uvicorn and Apache: a POST must not cross their close.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
