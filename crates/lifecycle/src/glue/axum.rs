use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    Router,
    extract::{ConnectInfo, Request},
    http::{HeaderValue, StatusCode, Version, header::CONNECTION},
    response::Response,
    routing::{MethodRouter, get},
    serve::IncomingStream,
};
use futures_util::{FutureExt, future::BoxFuture};
use pin_project::pin_project;
use tower_service::Service;

use crate::{Connection, Listener, Readiness, ShutdownSignal, readiness::Phase};

/// Serves an axum router, for [`Lifecycle::run`](crate::Lifecycle::run).
///
/// Handlers can extract `ConnectInfo<SocketAddr>`. In the last second before the drain, HTTP/1
/// connections are closed with their next response; in the drain, idle ones are closed. A server
/// that closes an idle connection may cross a request on its way, which is then lost. HTTP/2 has
/// GOAWAY for that.
pub fn serve_axum(
    router: Router,
) -> impl FnOnce(Listener, ShutdownSignal) -> BoxFuture<'static, io::Result<()>> + Send {
    move |listener, shutdown| {
        let connected = Connected { router, readiness: shutdown.readiness().clone() };
        let server = axum::serve(listener, connected).with_graceful_shutdown(shutdown);
        async move { server.await }.boxed()
    }
}

/// Makes the service of each connection.
struct Connected {
    router: Router,
    readiness: Readiness,
}

/// The service of one connection.
#[derive(Clone)]
struct OfConnection {
    router: Router,
    readiness: Readiness,
    /// `None` at a unix socket.
    peer: Option<SocketAddr>,
}

/// Closes the connection with the response, from [`Phase::Closing`] on.
#[pin_project]
struct Closing<F> {
    #[pin]
    response: F,
    /// `None`: not HTTP/1.
    readiness: Option<Readiness>,
}

impl Service<IncomingStream<'_, Listener>> for Connected {
    type Response = OfConnection;
    type Error = Infallible;
    type Future = Ready<Result<OfConnection, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, stream: IncomingStream<'_, Listener>) -> Self::Future {
        let (router, readiness) = (self.router.clone(), self.readiness.clone());
        ready(Ok(OfConnection { router, readiness, peer: *stream.remote_addr() }))
    }
}

impl Service<Request> for OfConnection {
    type Response = Response;
    type Error = Infallible;
    type Future = Closing<<Router as Service<Request>>::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        // HTTP/2 forbids the header.
        let readiness = (request.version() <= Version::HTTP_11).then(|| self.readiness.clone());
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        Closing { response: self.router.call(request), readiness }
    }
}

impl<F> Future for Closing<F>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.response.poll(context));
        let closes = this.readiness.as_ref().is_some_and(|it| it.phase() >= Phase::Closing);
        // An upgrade has its own use for the header, and a refusal of one names the protocol.
        if closes && !response.status().is_informational() {
            response.headers_mut().append(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response))
    }
}

/// The route for `/ready`: 200 while the server is ready, else 503.
///
/// The body is the readiness's `Display`.
///
/// ```
/// use axum::Router;
/// use tower_sd::lifecycle::{Readiness, ready_route};
///
/// let readiness = Readiness::new();
/// let router: Router = Router::new().route("/ready", ready_route(&readiness));
/// # drop(router);
/// ```
pub fn ready_route<S>(readiness: &Readiness) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    let readiness = readiness.clone();
    get(move || async move {
        let status = match readiness.is_ready() {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, readiness.to_string())
    })
}

impl axum::serve::Listener for Listener {
    type Addr = Option<SocketAddr>;
    type Io = Connection;

    async fn accept(&mut self) -> (Connection, Option<SocketAddr>) {
        Self::accept(self).await
    }

    fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        Self::local_addr(self).map(Some)
    }
}
