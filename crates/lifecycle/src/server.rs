use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{BoxFuture, join_all};
use tokio::{
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tower_sd_core::BoxError;

use crate::{Listener, Readiness, connection::Connections};

/// Resolves when the server must accept nothing more and finish its requests.
///
/// `with_graceful_shutdown` of axum and `serve_with_incoming_shutdown` of tonic take it.
#[derive(Debug)]
#[must_use = "a server that does not wait for it is aborted at the end of the drain"]
pub struct ShutdownSignal {
    requested: Pin<Box<WaitForCancellationFutureOwned>>,
    readiness: Readiness,
}

/// A server that has not begun.
pub(crate) type Serving =
    Box<dyn FnOnce(Listener, ShutdownSignal) -> BoxFuture<'static, Result<(), BoxError>> + Send>;

/// The servers of a life, each in a task of its own, and their connections.
///
/// Dropped early, the tasks and connections are aborted.
#[derive(Debug)]
pub(crate) struct Servers {
    connections: Vec<Connections>,
    drain: CancellationToken,
    tasks: JoinSet<Result<(), BoxError>>,
    has_ended: bool,
    outcome: Result<(), BoxError>,
}

impl Servers {
    pub(crate) fn new(connections: Vec<Connections>) -> Self {
        Self {
            connections,
            drain: CancellationToken::new(),
            tasks: JoinSet::new(),
            has_ended: false,
            outcome: Ok(()),
        }
    }

    pub(crate) fn start(&mut self, serving: Vec<(Listener, Serving)>, readiness: &Readiness) {
        for (listener, serve) in serving {
            let requested = Box::pin(self.drain.clone().cancelled_owned());
            let drain = ShutdownSignal { requested, readiness: readiness.clone() };
            // Also what it does before its first `async`.
            self.tasks.spawn(async move { serve(listener, drain).await });
        }
    }

    /// Waits for the first end of a server; without bound if none has begun. Cancel safe.
    pub(crate) async fn one_ended(&mut self) {
        while !self.has_ended {
            match self.tasks.join_next().await {
                Some(ended) => self.record(ended),
                None => std::future::pending().await,
            }
        }
    }

    /// Waits for the end of all servers. Cancel safe.
    async fn all_ended(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            self.record(ended);
        }
    }

    /// The first failure is the life's.
    fn record(&mut self, ended: Result<Result<(), BoxError>, JoinError>) {
        self.has_ended = true;
        let outcome = ended.unwrap_or_else(|panicked| Err(panicked.into()));
        if self.outcome.is_ok() {
            self.outcome = outcome;
        }
    }

    /// Whether no server runs.
    pub(crate) fn are_over(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The number of open connections, which outlive a server that has closed them for a moment.
    pub(crate) fn n_open(&self) -> usize {
        self.connections.iter().map(Connections::n_open).sum()
    }

    /// Stops accepting, waits for the last requests, and then for the servers and connections.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the servers may have no request to end: [`stop`](Self::stop) makes one.
    pub(crate) async fn drain(&mut self) {
        // Not the servers first: they would reset connections that wait to be accepted.
        self.connections.iter().for_each(Connections::stop_accepting);
        let quiet = join_all(self.connections.iter().map(Connections::quiet));
        if timeout(LAST_REQUESTS, quiet).await.is_err() {
            tracing::debug!("connections are idle, or busy for longer");
        }
        self.stop();
        self.all_ended().await;
        // Upgraded connections outlive their server.
        join_all(self.connections.iter().map(Connections::none_open)).await;
    }

    /// Requests the servers' end.
    pub(crate) fn stop(&self) {
        // First: a peer is silent after a GOAWAY that is written from then on.
        self.connections.iter().for_each(Connections::leave);
        self.drain.cancel();
    }

    /// Aborts the open connections, and returns their number.
    pub(crate) fn abort(&self) -> usize {
        let n_open = self.n_open();
        self.connections.iter().for_each(Connections::abort);
        n_open
    }

    /// The servers' end within `bound`, or else by force.
    pub(crate) async fn end(mut self, bound: Duration) -> Result<(), BoxError> {
        let half = bound / 2;
        if timeout(half, self.all_ended()).await.is_err() {
            // A server that goes on after its drain exceeds a deadline, and has not failed.
            self.tasks.abort_all();
            // One that blocks its thread does not end either.
            let rest = async { while self.tasks.join_next().await.is_some() {} };
            let _ended = timeout(half, rest).await;
        }
        std::mem::replace(&mut self.outcome, Ok(()))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.connections.iter().for_each(Connections::abort);
    }
}

impl ShutdownSignal {
    /// Returns the readiness, which changes earlier: while clients take notice.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }
}

impl Future for ShutdownSignal {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.requested.as_mut().poll(context)
    }
}

/// A connection accepted last has sent its request by then, and used ones were closed with their
/// response. The rest is idle, or HTTP/2, which closes safely.
const LAST_REQUESTS: Duration = Duration::from_millis(250);
