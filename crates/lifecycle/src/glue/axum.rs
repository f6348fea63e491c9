use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
    net::SocketAddr,
    task::{Context, Poll},
};

use axum::{
    Extension, Router,
    extract::ConnectInfo,
    http::StatusCode,
    middleware::AddExtension,
    routing::{MethodRouter, get},
    serve::IncomingStream,
};
use futures_util::{FutureExt, future::BoxFuture};
use tower_layer::Layer;
use tower_service::Service;

use crate::{CloseLayer, Connection, Drain, Listener, Phase, Readiness};

/// Serves an axum router, for [`Lifecycle::run`](crate::Lifecycle::run).
///
/// Handlers can extract `ConnectInfo<SocketAddr>`. In the last second before the drain, connections
/// are closed with their next response ([`CloseLayer`]); in the drain, idle ones are closed.
pub fn serve_axum(
    router: Router,
) -> impl FnOnce(Listener, Drain) -> BoxFuture<'static, io::Result<()>> + Send {
    move |listener, drain| {
        let router = router.layer(CloseLayer::new(drain.readiness()));
        let server = axum::serve(listener, WithPeer(router)).with_graceful_shutdown(drain);
        async move { server.await }.boxed()
    }
}

/// Makes the service of each connection, with its peer's address.
struct WithPeer(Router);

impl Service<IncomingStream<'_, Listener>> for WithPeer {
    type Response = AddExtension<Router, ConnectInfo<SocketAddr>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, stream: IncomingStream<'_, Listener>) -> Self::Future {
        let peer = ConnectInfo(*stream.remote_addr());
        ready(Ok(Extension(peer).layer(self.0.clone())))
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
            (false, Phase::Ready) => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
            (false, phase) => (StatusCode::SERVICE_UNAVAILABLE, phase.as_str()),
        }
    })
}

impl axum::serve::Listener for Listener {
    type Addr = SocketAddr;
    type Io = Connection;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        Self::accept(self).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }
}
