use std::{fmt, future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::timeout;
use tower_sd_core::BoxError;

use crate::report::Outcome;

/// The program's own work at three points of a life, in the order of its addition.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) before_ready: Vec<Hook>,
    pub(crate) after_start: Vec<Hook>,
    pub(crate) before_exit: Vec<Hook>,
}

pub(crate) struct Hook(Box<dyn FnOnce() -> BoxFuture<'static, Result<(), BoxError>> + Send>);

impl Hook {
    pub(crate) fn new<F, Fut, E>(hook: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self(Box::new(move || hook().map(|done| done.map_err(Into::into)).boxed()))
    }

    /// A hook that panics has failed; its server still stops in the right order.
    async fn run(self) -> Result<(), BoxError> {
        let run = AssertUnwindSafe(async move { (self.0)().await });
        run.catch_unwind().await.unwrap_or_else(|_panic| Err("the hook panicked".into()))
    }
}

/// Runs the hooks of the start until one fails.
pub(crate) async fn run(hooks: Vec<Hook>) -> Result<(), BoxError> {
    for hook in hooks {
        hook.run().await?;
    }
    Ok(())
}

/// Runs all hooks of the stop, each within `bound`, and returns the first failure.
pub(crate) async fn run_all(hooks: Vec<Hook>, bound: Duration) -> Outcome {
    let mut first = Outcome::Done;
    for hook in hooks {
        let outcome = match timeout(bound, hook.run()).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => Outcome::Failed(error),
            Err(_elapsed) => Outcome::TimedOut,
        };
        tracing::warn!(%outcome, "hook failed");
        if matches!(first, Outcome::Done) {
            first = outcome;
        }
    }
    first
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("before_ready", &self.before_ready.len())
            .field("after_start", &self.after_start.len())
            .field("before_exit", &self.before_exit.len())
            .finish()
    }
}
