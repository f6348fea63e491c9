use std::{
    error::Error as _,
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Method, Request, Response, uri::Scheme};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;
use tower_sd_balance::{BoxError, InFlight};
use tower_sd_net::TlsFailure;
use tower_service::Service;

use crate::{
    HeadersTooLarge, HttpError, HttpErrorKind, InFlightBody, ResponseBody,
    hold::leased,
    host::name_host,
    pool::{Checkout, Connection, Outgoing, Pool, Target, Unused, Upload},
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
pub struct ResponseFuture<B: Send + 'static>(Pin<Box<dyn Future<Output = LeasedAnswer<B>> + Send>>);

type Answer<B> = Result<Response<ResponseBody<B>>, HttpError>;
type LeasedAnswer<B> = Result<Response<InFlightBody<ResponseBody<B>>>, HttpError>;

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
        let target = pool.target();
        name_host(&mut request, target.host_policy, &target.authority);
        let deadline = lease.as_ref().and_then(InFlight::deadline);
        let exchange = exchange(connection, request, Arc::clone(pool), deadline);
        ResponseFuture(Box::pin(async move { leased(exchange.await, lease) }))
    }
}

/// Sends, and sends again on another connection as long as the one it had was closed before the
/// request was written: a server that closes idle connections does so at any time. It ends at the
/// first new connection.
async fn exchange<B>(
    mut unused: Unused<B>,
    mut request: Request<B>,
    pool: Arc<Pool<B>>,
    deadline: Option<Instant>,
) -> Answer<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    check(&request, pool.target())?;
    loop {
        let mut connection = unused.take().expect("present until it is dropped");
        let (sent, upload) = connection.send(request).await;
        let mut error = match sent {
            Ok(response) => return answer(response, connection, upload, &pool, deadline),
            Err(error) => error,
        };
        let unsent = error.take_message();
        let error = error.into_error();
        request = match unsent {
            None => return Err(failure(error, &connection, upload.as_ref(), &pool)),
            Some(_) if !connection.is_reused() => {
                return Err(connection.error(HttpErrorKind::NotSent, error));
            }
            Some(unsent) => unsent.map(Outgoing::into_inner),
        };
        drop(connection);
        let mut checkout = Checkout::again(Arc::clone(&pool));
        unused = loop {
            poll_fn(|cx| checkout.poll(cx)).await?;
            if let Some(unused) = checkout.take() {
                break unused;
            }
        };
    }
}

/// Refuses what cannot be sent.
fn check<B>(request: &Request<B>, target: &Target) -> Result<(), HttpError> {
    if request.uri().scheme() == Some(&Scheme::HTTPS) && target.tls.is_none() {
        let error = "the endpoint has no TLS, see HttpFactory::tls";
        return Err(HttpError::new(HttpErrorKind::TlsRequired, &target.address, error));
    }
    if request.method() == Method::CONNECT {
        let error = "CONNECT opens a tunnel, which an endpoint does not offer";
        return Err(HttpError::new(HttpErrorKind::Request, &target.address, error));
    }
    Ok(())
}

fn answer<B: Send + 'static>(
    response: Response<Incoming>,
    mut connection: Connection<B>,
    upload: Option<Upload>,
    pool: &Pool<B>,
    deadline: Option<Instant>,
) -> Answer<B> {
    let settings = pool.settings();
    let limit = settings.max_header_size;
    if let Some(found) = HeadersTooLarge::of(Some(response.status()), response.headers(), limit) {
        return Err(connection.error(HttpErrorKind::Headers, found));
    }
    connection.observe(&response);
    let upload = upload.filter(|upload| !upload.is_over());
    let (mut head, incoming) = response.into_parts();
    if let Some(upload) = &upload {
        head.extensions.insert(upload.clone());
    }
    let body = ResponseBody::new(incoming, connection, upload, settings, deadline);
    Ok(Response::from_parts(head, body))
}

/// The error of a request that may have been written.
fn failure<B: Send + 'static>(
    error: hyper::Error,
    connection: &Connection<B>,
    upload: Option<&Upload>,
    pool: &Pool<B>,
) -> HttpError {
    if upload.is_some_and(Upload::has_failed) {
        return connection.error(HttpErrorKind::Request, error);
    }
    // hyper offers its own query to servers only.
    if error.is_parse() && error.to_string() == "message head is too large" {
        let too_large = HeadersTooLarge::unread(pool.settings().http1_headers());
        return connection.error(HttpErrorKind::Headers, too_large);
    }
    let is_refused = is_refused(&error) || is_client_refused(&error, connection);
    let kind = if is_refused { HttpErrorKind::NotSent } else { HttpErrorKind::Io };
    connection.error(kind, error)
}

/// Whether the server refused the client's certificate, which in TLS 1.3 it reports in the place of
/// the first response. On a connection that has carried requests, the alert may concern one that
/// was read.
fn is_client_refused<B: Send + 'static>(error: &hyper::Error, connection: &Connection<B>) -> bool {
    let Some(tls) = connection.target().tls.as_ref().filter(|_| !connection.is_reused()) else {
        return false;
    };
    let is_refused = TlsFailure::find(error).is_some_and(|failure| failure.is_client_refused());
    if is_refused {
        tls.suspect();
    }
    is_refused
}

/// Whether the server reports that it has not read the request: it reset it as refused, or its
/// GOAWAY names an earlier one as the last (RFC 9113 §8.7). A request that it may have read ends
/// otherwise: h2 gives the GOAWAY as the reason to the later ones alone.
fn is_refused(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
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
    type Output = LeasedAnswer<B>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LeasedAnswer<B>> {
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
