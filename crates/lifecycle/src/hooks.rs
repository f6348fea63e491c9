use std::{fmt, future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::timeout;
use tower_sd_core::BoxError;

use crate::{Outcome, Step};

/// The hooks before each step.
#[derive(Default)]
pub(crate) struct Hooks(Vec<(Step, Hook)>);

type Hook = Box<dyn FnOnce() -> BoxFuture<'static, Result<(), BoxError>> + Send>;

impl Hooks {
    pub(crate) fn add<F, Fut, E>(&mut self, step: Step, hook: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let hook: Hook = Box::new(move || hook().map(|done| done.map_err(Into::into)).boxed());
        self.0.push((step, hook));
    }

    /// Removes those before `step`, in the order of their addition.
    pub(crate) fn take(&mut self, step: Step) -> Self {
        let (taken, left) =
            std::mem::take(&mut self.0).into_iter().partition(|(before, _)| *before == step);
        self.0 = left;
        Self(taken)
    }

    /// Runs all of them, until one fails.
    pub(crate) async fn run(self) -> Result<(), BoxError> {
        for (_step, hook) in self.0 {
            one(hook).await?;
        }
        Ok(())
    }

    /// Runs all of them, each within `bound`, and returns the first failure.
    pub(crate) async fn run_all(self, bound: Duration) -> Option<Outcome> {
        let mut trouble = None;
        for (step, hook) in self.0 {
            let outcome = match timeout(bound, one(hook)).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => Outcome::Failed(error),
                Err(_elapsed) => Outcome::TimedOut,
            };
            tracing::warn!(%step, %outcome, "hook failed");
            trouble.get_or_insert(outcome);
        }
        trouble
    }
}

/// A hook that panics has failed; its server still stops in the right order.
async fn one(hook: Hook) -> Result<(), BoxError> {
    let run = AssertUnwindSafe(async move { hook().await });
    run.catch_unwind().await.unwrap_or_else(|_panic| Err("the hook panicked".into()))
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(step, _)| step)).finish()
    }
}
