use std::{
    error::Error as _,
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, uri::Scheme};
use http_body::Body;
use tower_sd::BoxError;
use tower_service::Service;

use crate::{
    HttpError, HttpErrorKind, ResponseBody,
    host::name_host,
    pool::{Checkout, Connection, Pool},
    tls::is_handshake_refused,
};

/// One instance over HTTP, with connections of its own.
///
/// `poll_ready` obtains a connection, so a dead instance is noticed before it is given a request; `call` sends on it.
/// Clones share the connections; each clone obtains its own. When the last clone is dropped, idle connections close at
/// once, and those that carry a response close when it has ended.
pub struct HttpEndpoint<B: Send + 'static> {
    checkout: Checkout<B>,
}

/// The response of an [`HttpEndpoint`], to come. Dropped, it closes the connection.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<B: Send + 'static>(Pin<Box<dyn Future<Output = Answer<B>> + Send>>);

type Answer<B> = Result<Response<ResponseBody<B>>, HttpError>;

impl<B: Send + 'static> HttpEndpoint<B> {
    pub(crate) fn new(pool: Arc<Pool<B>>) -> Self {
        Self { checkout: Checkout::new(pool) }
    }
}

impl<B> Service<Request<B>> for HttpEndpoint<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<B>>;
    type Error = HttpError;
    type Future = ResponseFuture<B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        self.checkout.poll(cx)
    }

    /// # Panics
    ///
    /// When `poll_ready` has not said that it is ready, as `Service` allows.
    fn call(&mut self, mut request: Request<B>) -> ResponseFuture<B> {
        let connection = self.checkout.take().expect("poll_ready is called and ready before call");
        let pool = self.checkout.pool();
        let target = pool.target();
        name_host(&mut request, target.host_policy, &target.authority);
        let exchange = exchange(connection, request, Arc::clone(pool));
        ResponseFuture(Box::pin(exchange))
    }
}

/// Sends, and sends again on another connection as long as the one it had was closed before the request was written:
/// a server that closes idle connections does so at any time. It ends at the first new connection.
async fn exchange<B>(
    mut connection: Connection<B>,
    mut request: Request<B>,
    pool: Arc<Pool<B>>,
) -> Answer<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let target = pool.target();
    if request.uri().scheme() == Some(&Scheme::HTTPS) && target.secured.is_none() {
        let error = "the endpoint speaks no TLS, see HttpFactory::tls";
        let error = HttpError::new(HttpErrorKind::Insecure, &target.address, error);
        connection.give_back();
        return Err(error);
    }
    loop {
        let mut error = match connection.send(request).await {
            Ok(response) => {
                return Ok(response.map(|body| ResponseBody::new(body, connection)));
            }
            Err(error) => error,
        };
        let unsent = error.take_message();
        let error = error.into_error();
        request = match unsent {
            None if is_refused(&error) => {
                return Err(connection.error(HttpErrorKind::Unsent, error));
            }
            None => return Err(connection.error(HttpErrorKind::Exchange, error)),
            Some(_) if !connection.is_reused() => {
                return Err(connection.error(HttpErrorKind::Unsent, error));
            }
            Some(unsent) => unsent,
        };
        let mut checkout = Checkout::instead_of(connection, Arc::clone(&pool));
        connection = loop {
            poll_fn(|cx| checkout.poll(cx)).await?;
            if let Some(connection) = checkout.take() {
                break connection;
            }
        };
    }
}

/// Whether the server says that it has not looked at the request: it reset it as refused, or told in its GOAWAY that it
/// had come to an earlier one only (RFC 9113 §8.7). A request that it may have seen ends otherwise: h2 gives the GOAWAY
/// as the reason to the later ones alone.
fn is_refused(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    is_handshake_refused(error)
        || cause.is_some_and(|cause| {
            let refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
            cause.is_remote() && (cause.is_go_away() || refused)
        })
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
