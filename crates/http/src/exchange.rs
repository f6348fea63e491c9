//! One request, from its first connection to the head of its response.

use std::{
    error::Error as _,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Method, Request, Response, uri::Scheme};
use http_body::Body;
use hyper::{body::Incoming, client::conn::TrySendError};
use pin_project::pin_project;
use tokio_util::either::Either;
use tower_sd_balance::InFlight;
use tower_sd_net::TlsFailure;

use crate::{
    HeadersTooLarge, HttpError, HttpErrorKind, InFlightBody, ResponseBody,
    deadline::header,
    hold::{Unanswered, leased, released},
    pool::{Checkout, Connection, Outgoing, Payload, Pool, Target, Unused, Upload, announced},
};

pub(crate) type Answer<B> = Result<Response<InFlightBody<ResponseBody<B>>>, HttpError>;

/// A request on its way, in the one allocation that it costs.
pub(crate) type Exchanging<B> = Pin<Box<dyn Future<Output = Answer<B>> + Send>>;

/// A request, its connection, and the response to come.
///
/// Written out: an async function keeps the request as an argument, as a local, and in each
/// function that it awaits. It copies it from one to the other.
#[pin_project]
struct Exchange<F, S, B: Send + 'static> {
    send: S,
    /// Until the first poll: dropped before, it leaves the connection to another request.
    fresh: Option<(Unused<B>, Request<B>)>,
    #[pin]
    response: Option<F>,
    /// That of a request that was sent.
    sent: Option<Connection<B>>,
    /// On another connection.
    next: Option<Exchanging<B>>,
    pool: Arc<Pool<B>>,
    held: Unanswered,
}

type Unsent<B> = TrySendError<Request<Outgoing<B>>>;

/// Sends, and sends again on another connection as long as the one it had was closed before the
/// request was written: a server that closes idle connections does so at any time. It ends at the
/// first new connection.
pub(crate) fn begin<B: Payload>(
    unused: Unused<B>,
    request: Request<B>,
    pool: &Arc<Pool<B>>,
    lease: Option<InFlight>,
) -> Exchanging<B> {
    if let Err(error) = check(&request, pool.target()) {
        return Box::pin(async move { Err(released(error, lease)) });
    }
    // Its response has no type that could be named.
    let send = |connection: &mut Connection<B>, request| match connection {
        Connection::Http1(exclusive) => Either::Left(exclusive.sender.try_send_request(request)),
        Connection::Http2(stream) => Either::Right(stream.sender.try_send_request(request)),
    };
    let (fresh, pool) = (Some((unused, request)), Arc::clone(pool));
    let held = Unanswered { lease, upload: None };
    Box::pin(Exchange { send, fresh, response: None, sent: None, next: None, pool, held })
}

/// Sends on another connection.
async fn send_again<B: Payload>(
    mut request: Request<B>,
    pool: Arc<Pool<B>>,
    lease: Option<InFlight>,
) -> Answer<B> {
    let mut checkout = Checkout::again(Arc::clone(&pool));
    let unused = loop {
        if let Err(error) = poll_fn(|cx| checkout.poll(cx)).await {
            return Err(released(error, lease));
        }
        if let Some(unused) = checkout.take() {
            break unused;
        }
    };
    // Time has passed since it was written first.
    if let Some(at) = lease.as_ref().and_then(InFlight::head_deadline) {
        header::write(request.headers_mut(), at);
    }
    begin(unused, request, &pool, lease).await
}

impl<F, S, B> Future for Exchange<F, S, B>
where
    F: Future<Output = Result<Response<Incoming>, Unsent<B>>>,
    S: Fn(&mut Connection<B>, Request<Outgoing<B>>) -> F,
    B: Payload,
{
    type Output = Answer<B>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer<B>> {
        let mut this = self.project();
        if let Some((unused, request)) = this.fresh.take() {
            let mut connection = unused.take().expect("present until it is dropped");
            let (parts, body) = request.into_parts();
            let (body, upload) = Outgoing::new(body, &parts.headers);
            let mut request = Request::from_parts(parts, body);
            connection.adapt(&mut request);
            this.response.set(Some((this.send)(&mut connection, request)));
            (*this.sent, this.held.upload) = (Some(connection), upload);
        }
        if let Some(response) = this.response.as_mut().as_pin_mut() {
            let result = ready!(response.poll(cx));
            this.response.set(None);
            let connection = this.sent.take().expect("it was sent");
            let (lease, upload) = (this.held.lease.take(), this.held.upload.take());
            match result {
                Ok(response) => {
                    return Poll::Ready(answer(response, connection, upload, this.pool, lease));
                }
                Err(error) => {
                    *this.next = Some(fail(error, connection, upload.as_ref(), this.pool, lease)?);
                }
            }
        }
        let next = this.next.as_mut().expect("a future is not polled after its end");
        next.as_mut().poll(cx)
    }
}

fn answer<B: Send + 'static>(
    response: Response<Incoming>,
    mut connection: Connection<B>,
    upload: Option<Upload>,
    pool: &Pool<B>,
    lease: Option<InFlight>,
) -> Answer<B> {
    let settings = pool.settings();
    let (status, limit) = (response.status(), settings.max_header_size);
    if let Some(found) = HeadersTooLarge::of(Some(status), response.headers(), limit) {
        let error = connection.error(HttpErrorKind::Headers, found);
        connection.give_up(upload);
        return Err(released(error, lease));
    }
    connection.observe(&response);
    let upload = upload.filter(|upload| !upload.is_over());
    let deadline = lease.as_ref().and_then(InFlight::deadline);
    let held = upload.clone();
    let body = |incoming| ResponseBody::new(incoming, connection, held, settings, deadline);
    Ok(leased(response.map(body), lease, upload))
}

/// Another attempt, or the error of this one.
#[cold]
fn fail<B: Payload>(
    mut error: Unsent<B>,
    connection: Connection<B>,
    upload: Option<&Upload>,
    pool: &Arc<Pool<B>>,
    lease: Option<InFlight>,
) -> Result<Exchanging<B>, HttpError> {
    let unsent = error.take_message();
    let error = error.into_error();
    let error = match unsent {
        None => failure(error, &connection, upload, pool),
        Some(_) if !connection.is_reused() => connection.error(HttpErrorKind::NotSent, error),
        Some(unsent) => {
            drop(connection);
            let unsent = unsent.map(Outgoing::into_inner);
            return Ok(Box::pin(send_again(unsent, Arc::clone(pool), lease)));
        }
    };
    Err(released(error, lease))
}

/// Refuses what cannot be sent.
fn check<B: Body>(request: &Request<B>, target: &Target) -> Result<(), HttpError> {
    if request.uri().scheme() == Some(&Scheme::HTTPS) && target.tls.is_none() {
        let error = "the endpoint has no TLS, see HttpFactory::tls";
        return Err(HttpError::new(HttpErrorKind::TlsRequired, &target.address, error));
    }
    if request.method() == Method::CONNECT {
        let error = "CONNECT opens a tunnel, which an endpoint does not offer";
        return Err(HttpError::new(HttpErrorKind::Request, &target.address, error));
    }
    // The server would wait for the rest, or read it from the next request.
    if let (Some(length), Some(announced)) =
        (request.body().size_hint().exact(), announced(request.headers()))
        && length != announced
    {
        let error = format!("its body has {length} bytes, and content-length is {announced}");
        return Err(HttpError::new(HttpErrorKind::Request, &target.address, error));
    }
    Ok(())
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
/// was read; over HTTP/2 others are answered beside the first.
fn is_client_refused<B: Send + 'static>(error: &hyper::Error, connection: &Connection<B>) -> bool {
    let is_first = matches!(connection, Connection::Http1(exclusive) if !exclusive.reused);
    let Some(tls) = connection.target().tls.as_ref().filter(|_| is_first) else {
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
pub(crate) fn is_refused(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        let refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
        cause.is_remote() && (cause.is_go_away() || refused)
    })
}
