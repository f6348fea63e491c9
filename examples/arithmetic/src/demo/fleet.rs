//! Servers that can be stopped and killed as processes can, inside this one.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::JoinHandle,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tower_sd::lifecycle::{Lifecycle, Listener, serve_axum};
use tower_sd::{BoxError, Instance, Registration};

use super::registry::{Registry, TTL};
use crate::server;

/// One server with its own runtime, whose shutdown is like a killed process.
///
/// Everything of the server ends in the middle of its work, its connections and its renewals too.
pub(crate) struct Server {
    name: String,
    runtime: Runtime,
    running: JoinHandle<Result<(), BoxError>>,
    stop: CancellationToken,
    in_flight: Arc<AtomicUsize>,
}

impl Server {
    /// Listens on a port of loopback and registers.
    pub(crate) async fn start(name: &str, registry: &Registry) -> Result<Self, BoxError> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (stop, in_flight) = (CancellationToken::new(), Arc::default());
        let router = observed(server::router(), Arc::clone(&in_flight));
        let (id, service) = (name.to_owned(), registry.service().to_owned());
        let registration =
            |instance: Instance| Registration::new(service, instance.with_id(id)).ttl(TTL);
        let (registry, stopped) = (registry.clone(), stop.clone());
        let (live, is_live) = oneshot::channel();
        let running = runtime.spawn(async move {
            let lifecycle = Lifecycle::new()
                .ignore_signals()
                .shutdown_on(stopped)
                .register_with(registry.open()?, registration)
                .after_start(|| async { live.send(()).map_err(|()| "the receiver is gone") });
            lifecycle.run(Listener::bind("127.0.0.1:0").await?, serve_axum(router)).await?;
            Ok(())
        });
        let server = Self { name: name.to_owned(), runtime, running, stop, in_flight };
        match is_live.await {
            Ok(()) => Ok(server),
            Err(_ended) => match server.stop().await {
                Ok(()) => Err("a server ended before it was registered".into()),
                Err(error) => Err(error),
            },
        }
    }

    /// What SIGTERM does: withdraws, answers what it has, ends.
    pub(crate) async fn stop(self) -> Result<(), BoxError> {
        self.stop.cancel();
        let ended = self.running.await;
        self.runtime.shutdown_background();
        ended?
    }

    /// What SIGKILL does, at a moment when a request has just begun: it dies, and the registry
    /// learns nothing.
    pub(crate) async fn kill(self) {
        let mut before = self.in_flight.load(SeqCst);
        loop {
            sleep(Duration::from_millis(1)).await;
            let now = self.in_flight.load(SeqCst);
            if now > before {
                break;
            }
            before = now;
        }
        self.runtime.shutdown_background();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Counts the requests in flight, and gives each the time that real work takes.
fn observed(router: Router, in_flight: Arc<AtomicUsize>) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let working = Working::new(&in_flight);
        async move {
            sleep(WORK).await;
            let response = next.run(request).await;
            drop(working);
            response
        }
    }))
}

/// Counted until dropped: a request may be abandoned.
struct Working(Arc<AtomicUsize>);

impl Working {
    fn new(in_flight: &Arc<AtomicUsize>) -> Self {
        in_flight.fetch_add(1, SeqCst);
        Self(Arc::clone(in_flight))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Long enough that a server that is killed has requests in flight.
const WORK: Duration = Duration::from_millis(20);
