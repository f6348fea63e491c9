//! Servers on loopback that end with their test.

use axum::Router;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tower_sd::Instance;

/// An HTTP server.
pub(crate) struct Server {
    instance: Instance,
    _task: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let instance = instance(&listener);
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.expect("serves") });
        Self { instance, _task: task }
    }

    pub(crate) fn instance(&self) -> Instance {
        self.instance.clone()
    }
}

/// A gRPC server with tonic's health service, until `JoinSet` is dropped.
pub(crate) async fn health() -> (Instance, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let instance = instance(&listener);
    let (_reporter, service) = tonic_health::server::health_reporter();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let incoming = TcpListenerStream::new(listener);
        let router = tonic::transport::Server::builder().add_service(service);
        router.serve_with_incoming(incoming).await.expect("serves");
    });
    (instance, task)
}

fn instance(listener: &TcpListener) -> Instance {
    let address = listener.local_addr().expect("bound");
    Instance::new(address.ip().to_string(), address.port())
}
