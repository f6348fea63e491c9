use std::{io, net::SocketAddr};

use axum::{
    Router,
    http::StatusCode,
    routing::{MethodRouter, get},
};
use futures_util::{FutureExt, future::BoxFuture};

use crate::{CloseLayer, Connection, Drain, Listener, Readiness};

/// What [`Lifecycle::run`](crate::Lifecycle::run) asks for, of an axum router.
///
/// From the moment on that it is not ready any more, connections are closed with their next answer ([`CloseLayer`]); when
/// it drains, idle ones at once.
pub fn serve_axum(
    router: Router,
) -> impl FnOnce(Listener, Drain) -> BoxFuture<'static, io::Result<()>> + Send {
    move |listener, drain| {
        let router = router.layer(CloseLayer::new(drain.readiness()));
        async move { axum::serve(listener, router).with_graceful_shutdown(drain).await }.boxed()
    }
}

/// The route for `/ready`: 200 while the server wants requests, else 503; the body says which phase it is in.
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
        let phase = readiness.phase();
        let status = match readiness.is_ready() {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, phase.as_str())
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
