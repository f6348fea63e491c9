use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
    net::SocketAddr,
    task::{Context, Poll},
};

use axum::{
    Router,
    extract::{ConnectInfo, Request},
    http::StatusCode,
    response::Response,
    routing::{MethodRouter, get},
    serve::IncomingStream,
};
use futures_util::{FutureExt, future::BoxFuture};
use tower_service::Service;

use crate::{
    Connection, ConnectionCloseLayer, Listener, Readiness, ReadinessState, ShutdownSignal,
};

/// Serves an axum router, for [`Lifecycle::run`](crate::Lifecycle::run).
///
/// Handlers can extract `ConnectInfo<SocketAddr>`. In the last second before the drain, connections
/// are closed with their next response ([`ConnectionCloseLayer`]); in the drain, idle ones are closed.
pub fn serve_axum(
    router: Router,
) -> impl FnOnce(Listener, ShutdownSignal) -> BoxFuture<'static, io::Result<()>> + Send {
    move |listener, drain| {
        let router = router.layer(ConnectionCloseLayer::new(drain.readiness()));
        let server = axum::serve(listener, WithPeer(router)).with_graceful_shutdown(drain);
        async move { server.await }.boxed()
    }
}

/// Makes the service of each connection, with its peer's address.
struct WithPeer(Router);

/// A router whose requests have the address of their peer.
#[derive(Clone)]
struct Peered {
    router: Router,
    /// `None`: at a unix socket.
    peer: Option<SocketAddr>,
}

impl Service<IncomingStream<'_, Listener>> for WithPeer {
    type Response = Peered;
    type Error = Infallible;
    type Future = Ready<Result<Peered, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, stream: IncomingStream<'_, Listener>) -> Self::Future {
        ready(Ok(Peered { router: self.0.clone(), peer: *stream.remote_addr() }))
    }
}

impl Service<Request> for Peered {
    type Response = Response;
    type Error = Infallible;
    type Future = <Router as Service<Request>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        self.router.call(request)
    }
}

/// The route for `/ready`: 200 while the server is ready, else 503.
///
/// The body is the phase, or `unhealthy`.
///
/// ```
/// use axum::Router;
/// use tower_sd_lifecycle::{Readiness, ready_route};
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
        match (readiness.is_ready(), readiness.phase()) {
            (true, phase) => (StatusCode::OK, phase.as_str()),
            (false, ReadinessState::Ready) => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
            (false, phase) => (StatusCode::SERVICE_UNAVAILABLE, phase.as_str()),
        }
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
