use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use tokio_util::sync::CancellationToken;
use tower_sd_balance::{BoxError, InFlight};
use tower_sd_core::TaskGroup;
use tower_service::Service;

use crate::{
    HttpError, InFlightBody, ResponseBody,
    deadline::header,
    exchange::{self, Answer, Exchanging},
    host::name_host,
    pool::{Checkout, Pool, Target},
};

/// One instance over HTTP, with connections of its own.
///
/// `poll_ready` obtains a connection, so a dead instance is noticed before it is given a request;
/// `call` sends on it. Clones share the connections; each clone obtains its own. When the last
/// clone is dropped, idle connections close immediately, and those that carry a response close when
/// it has ended.
///
/// Connecting belongs to the endpoint and not to a request: a caller that gives up waiting leaves
/// it running, few run at a time, and a failure ends the waiting of every request that has no
/// connection.
pub struct HttpEndpoint<B: Send + 'static> {
    checkout: Checkout<B>,
}

/// The future response of an [`HttpEndpoint`].
///
/// Dropped after its first poll, it closes the connection.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<B: Send + 'static>(Exchanging<B>);

impl<B: Send + 'static> HttpEndpoint<B> {
    pub(crate) fn new(pool: Arc<Pool<B>>) -> Self {
        Self { checkout: Checkout::new(pool) }
    }
}

impl<B: Send + 'static> HttpEndpoint<B> {
    /// Another one to the same instance, for requests with other bodies, of which no limit counts
    /// the connection.
    pub(crate) fn beside<C: Send + 'static>(&self, tasks: TaskGroup) -> HttpEndpoint<C> {
        let pool = self.checkout.pool();
        let target = Target { limit: None, ..pool.target().as_ref().clone() };
        HttpEndpoint::new(Pool::new(target, *pool.settings(), tasks))
    }

    /// Fires when its last clone is gone.
    pub(crate) fn gone(&self) -> CancellationToken {
        self.checkout.pool().gone()
    }
}

impl<B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static> Service<Request<B>>
    for HttpEndpoint<B>
{
    type Response = Response<InFlightBody<ResponseBody<B>>>;
    type Error = HttpError;
    type Future = ResponseFuture<B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        self.checkout.poll(cx)
    }

    /// # Panics
    ///
    /// When `poll_ready` has not returned that it is ready, as `Service` allows.
    fn call(&mut self, mut request: Request<B>) -> ResponseFuture<B> {
        let lease = InFlight::take();
        let connection = self.checkout.take().expect("poll_ready is called and ready before call");
        let pool = self.checkout.pool();
        name_host(&mut request, pool.target().host_policy, &pool.target().authority);
        if let Some(at) = lease.as_ref().and_then(InFlight::head_deadline) {
            header::write(request.headers_mut(), at);
        }
        ResponseFuture(exchange::begin(connection, request, pool, lease))
    }
}

impl<B: Send + 'static> Clone for HttpEndpoint<B> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(self.checkout.pool()))
    }
}

impl<B: Send + 'static> fmt::Debug for HttpEndpoint<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpEndpoint")
            .field("target", self.checkout.pool().target())
            .finish_non_exhaustive()
    }
}

impl<B: Send + 'static> Future for ResponseFuture<B> {
    type Output = Answer<B>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer<B>> {
        self.0.as_mut().poll(cx)
    }
}

impl<B: Send + 'static> fmt::Debug for ResponseFuture<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
