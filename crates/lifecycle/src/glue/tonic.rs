use futures_util::{FutureExt, future::BoxFuture};
use tonic::transport::{
    Error,
    server::{Connected, Router, TcpConnectInfo},
};

use crate::{Connection, Drain, Listener};

/// What [`Lifecycle::run`](crate::Lifecycle::run) asks for, of a tonic router: `Server::builder().add_service(…)`.
///
/// When it drains, clients are told by GOAWAY to use another connection, and streams go on until they end or are cut. A
/// router with layers has another type: give `run` the closure that is in here.
pub fn serve_tonic(
    router: Router,
) -> impl FnOnce(Listener, Drain) -> BoxFuture<'static, Result<(), Error>> + Send {
    move |listener, drain| {
        async move { router.serve_with_incoming_shutdown(listener.incoming(), drain).await }.boxed()
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: self.local_addr().ok(), remote_addr: self.peer_addr().ok() }
    }
}
