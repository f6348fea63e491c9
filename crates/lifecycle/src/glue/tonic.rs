use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use tonic::{
    body::Body,
    service::Routes,
    transport::{
        Error,
        server::{Connected, Router, TcpConnectInfo},
    },
};
use tower_layer::Layer;
use tower_sd_core::BoxError;
use tower_service::Service;

use crate::{Connection, Listener, ShutdownSignal};

/// Serves a tonic router, for [`Lifecycle::run`](crate::Lifecycle::run).
///
/// That is `Server::builder().add_service(…)`, with layers or without. In the drain, GOAWAY sends
/// clients to another connection, and streams go on until they end or are aborted.
pub fn serve_tonic<L, S, B>(
    router: Router<L>,
) -> impl FnOnce(Listener, ShutdownSignal) -> BoxFuture<'static, Result<(), Error>> + Send
where
    L: Layer<Routes, Service = S> + Send + 'static,
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    move |listener, drain| {
        async move { router.serve_with_incoming_shutdown(listener.incoming(), drain).await }.boxed()
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: self.local_addr(), remote_addr: self.peer_addr() }
    }
}
