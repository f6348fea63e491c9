//! The client of one service, as an application stores it.

mod body;
mod builder;
mod error;
mod future;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Buf;
use http::{Request, Response, uri::Authority};
use http_body::Body as HttpBody;
use tower_layer::Layer;
use tower_sd_balance::{
    Balance, BoxError, CallerDeadline, Endpointer, EndpointerReport, Instancer, NoInstances,
    RequestScope, Retry,
};
use tower_service::Service;

use self::body::cast;
#[cfg(feature = "reqwest")]
pub(crate) use self::builder::{PER_TRY_TIMEOUT, READ_TIMEOUT, TIMEOUT};
pub use self::{
    body::{Body, RequestBody},
    builder::ClientBuilder,
    error::{ClientError, ClientErrorKind},
    future::ClientFuture,
};
use crate::{HttpEndpoint, HttpProtocol};

/// A client of one service: balanced, retried, and stored under this name.
///
/// It is a `tower::Service<http::Request<B>>` for every body `B`. Clones share connections and
/// statistics. It is made of the public layers: `RetryLayer` over `BalanceLayer` over an
/// `Endpointer` of `HttpFactory`.
///
/// # Defaults
///
/// | | default | reason |
/// |---|---|---|
/// | balancer | [least loaded] | a slow or loaded instance gets less |
/// | sent | 3 times, at other instances if there are | two failing instances are survived |
/// | repeated | what was never sent, and idempotent methods | a POST arrives at most once |
/// | per try | 5 s to the head, the upload included | three attempts fit into the whole |
/// | hedged | nothing | it costs load; see [`hedge`](ClientBuilder::hedge) |
/// | whole request | 15 s to the head, the upload included | Envoy's default for a route |
/// | response body | 5 min between two parts | Envoy's default for an idle stream |
/// | waiting for an instance | 1 s | longer than a restart takes to be noticed |
///
/// [least loaded]: tower_sd_balance::LeastLoaded
///
/// A body that was kept whole can be repeated without bound, any other up to 64 KiB; see
/// [`RequestBody`].
///
/// # Cost
///
/// The defaults erase nothing: the client allocates what its layers do. [`layer`](Self::layer),
/// hedges, and a factory or a protocol of another type, cost one allocation per request and one per
/// response body.
///
/// # Drop
///
/// With the last clone following ends and idle connections close; requests in flight are finished.
///
/// # Examples
///
/// ```no_run
/// use http::Request;
/// use tower_sd::http::Client;
/// use tower_sd::{FixedInstancer, Instance};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_sd::BoxError> {
/// let orders = Client::new(FixedInstancer::new([Instance::new("127.0.0.1", 8081)]));
/// let response = orders.request(Request::get("http://orders/health").body(String::new())?).await?;
/// println!("{}", response.status());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    stack: Stack,
    endpoints: Arc<dyn Endpoints>,
}

#[derive(Clone)]
enum Stack {
    Direct(Direct),
    Layered(Arc<Layered>),
}

/// What the defaults make.
type Direct = Retry<Balance<HttpEndpoint<RequestBody>>, HttpProtocol>;
type Layered = dyn Fn(Request<RequestBody>) -> LayeredFuture + Send + Sync;
type LayeredFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

impl Client {
    /// A client of the service that `instancer` follows, with the defaults.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime: it starts the task that follows the instances.
    pub fn new(instancer: impl Instancer) -> Self {
        Self::builder(instancer).build()
    }

    /// Settings for a client of the service that `instancer` follows.
    pub fn builder(instancer: impl Instancer) -> ClientBuilder {
        ClientBuilder::new(instancer)
    }

    fn over<S, R>(service: S, endpoints: Arc<dyn Endpoints>) -> Self
    where
        S: Service<
                Request<RequestBody>,
                Response = Response<R>,
                Error: Into<BoxError>,
                Future: Send,
            > + Clone
            + Send
            + Sync
            + 'static,
        R: HttpBody<Data: Buf, Error: Into<BoxError>> + Send + 'static,
    {
        let stack = match cast::<S, Direct>(service) {
            Ok(direct) => Stack::Direct(direct),
            Err(service) => Stack::Layered(Arc::new(move |request| {
                let mut service = service.clone();
                Box::pin(async move {
                    poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
                    let response = service.call(request).await.map_err(Into::into)?;
                    Ok(response.map(Body::layered))
                })
            })),
        };
        Self { stack, endpoints }
    }

    /// Puts `layer` around the whole client: a trace, a header, a limit.
    ///
    /// The layer gets a `Client` and every request once, whatever is retried below. A layer for
    /// each attempt goes on the factory, see [`ClientBuilder::factory`]. A layer that is not ready
    /// makes requests wait, not [`poll_ready`](Service::poll_ready).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use tower::limit::ConcurrencyLimitLayer;
    /// use tower_sd::http::Client;
    /// use tower_sd::{FixedInstancer, Instance};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let orders: Client = Client::new(FixedInstancer::new([Instance::new("127.0.0.1", 8081)]))
    ///     .layer(ConcurrencyLimitLayer::new(100));
    /// # let _ = orders;
    /// # }
    /// ```
    #[must_use]
    pub fn layer<L, R>(self, layer: L) -> Self
    where
        L: Layer<Self>,
        L::Service: Service<
                Request<RequestBody>,
                Response = Response<R>,
                Error: Into<BoxError>,
                Future: Send,
            > + Clone
            + Send
            + Sync
            + 'static,
        R: HttpBody<Data: Buf, Error: Into<BoxError>> + Send + 'static,
    {
        let endpoints = Arc::clone(&self.endpoints);
        Self::over(layer.layer(self), endpoints)
    }

    /// Sends a request. The same as `Service::call`, on a shared client.
    pub fn request<B>(&self, request: Request<B>) -> ClientFuture
    where
        B: HttpBody<Data: Buf, Error: Into<BoxError>> + Send + 'static,
    {
        let service = request.uri().authority().and_then(without_user);
        let request = request.map(RequestBody::new);
        match &self.stack {
            Stack::Direct(direct) => ClientFuture::direct(service, direct.clone().call(request)),
            Stack::Layered(layered) => {
                let mut future = layered(request);
                // It calls the client below when it is polled, which may be elsewhere.
                if let Some(deadline) = CallerDeadline::current() {
                    future = Box::pin(deadline.scope(future));
                }
                if let Some(scope) = RequestScope::current() {
                    let mut inner = future;
                    future = Box::pin(poll_fn(move |cx| scope.enter(|| inner.as_mut().poll(cx))));
                }
                ClientFuture::layered(service, future)
            }
        }
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
        self.endpoints.ready(timeout).await
    }

    /// The state of every endpoint now. Costs a walk over all of them.
    pub fn report(&self) -> EndpointerReport {
        self.endpoints.report()
    }

    /// Stops following, and waits until the requests in flight have ended.
    ///
    /// It sends no more requests, and waits at most for the endpointer's
    /// [`drain_timeout`](tower_sd_balance::EndpointerConfig::drain_timeout). Repeated, it does
    /// nothing.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, only the waiting is lost.
    pub async fn close(&self) {
        self.endpoints.close().await;
    }
}

impl<B> Service<Request<B>> for Client
where
    B: HttpBody<Data: Buf, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = ClientError;
    type Future = ClientFuture;

    /// Always ready: an instance is picked when there is a request.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ClientFuture {
        self.request(request)
    }
}

/// An [`Endpointer`], whatever its services are.
trait Endpoints: Send + Sync {
    fn ready(&self, timeout: Duration) -> BoxFuture<'_, Result<(), NoInstances>>;
    fn report(&self) -> EndpointerReport;
    fn close(&self) -> BoxFuture<'_, ()>;
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl<S: Clone + Send + Sync + 'static> Endpoints for Endpointer<S> {
    fn ready(&self, timeout: Duration) -> BoxFuture<'_, Result<(), NoInstances>> {
        Box::pin(self.ready(timeout))
    }

    fn report(&self) -> EndpointerReport {
        self.report()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.close())
    }
}

/// Returns the host and port: a user's name and password are for no error.
fn without_user(authority: &Authority) -> Option<Authority> {
    match authority.as_str().rsplit_once('@') {
        Some((_user, host)) => Authority::try_from(host).ok(),
        None => Some(authority.clone()),
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
