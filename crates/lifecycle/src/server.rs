use std::{
    future::{Future, pending},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tower_sd_core::BoxError;

use crate::Readiness;

/// Resolves when the server has to accept nothing more and to finish what it has.
///
/// It is what `with_graceful_shutdown` of axum and `serve_with_incoming_shutdown` of tonic ask for.
#[derive(Debug)]
#[must_use = "a server that does not wait for it is cut at the end of the drain"]
pub struct Drain {
    requested: Pin<Box<WaitForCancellationFutureOwned>>,
    readiness: Readiness,
}

/// The user's server, in a task of its own.
#[derive(Debug, Default)]
pub(crate) struct Server {
    drain: CancellationToken,
    task: JoinSet<Result<(), BoxError>>,
    outcome: Option<Result<(), BoxError>>,
}

impl Server {
    /// Starts what `serve` makes.
    pub(crate) fn start<F, E>(&mut self, readiness: Readiness, serve: impl FnOnce(Drain) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let requested = Box::pin(self.drain.clone().cancelled_owned());
        let drain = Drain { requested, readiness };
        let serving = serve(drain);
        self.task.spawn(async move { serving.await.map_err(Into::into) });
    }

    /// Waits for its end; for ever if it has not begun. Cancel safe.
    pub(crate) async fn ended(&mut self) {
        if self.outcome.is_some() {
            return;
        }
        self.outcome = match self.task.join_next().await {
            Some(Ok(outcome)) => Some(outcome),
            Some(Err(panicked)) => Some(Err(panicked.into())),
            None => pending().await,
        };
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.outcome.is_some()
    }

    /// Tells it to finish what it has.
    pub(crate) fn drain(&self) {
        self.drain.cancel();
    }

    /// Its end within `bound`, or else by force. Without a server: nothing.
    pub(crate) async fn end(mut self, bound: Duration) -> Result<(), BoxError> {
        if self.outcome.is_none() && self.task.is_empty() {
            return Ok(());
        }
        if timeout(bound, self.ended()).await.is_err() {
            // Told to drain, and it went on: that is not its failure but the deadline's.
            self.task.shutdown().await;
        }
        self.outcome.unwrap_or(Ok(()))
    }
}

impl Drain {
    /// Says earlier that the server is on its way out: while clients take notice, before it drains.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }
}

impl Future for Drain {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.requested.as_mut().poll(context)
    }
}
