//! Steps, and the orders that cut them short.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, timeout};
use tower_sd_core::{BoxError, chain};

use crate::{
    report::{HURRIED, Outcome, Reason, Step, StepReport},
    stop_orders::StopOrders,
};

/// Runs the steps of a life, and records them.
pub(crate) struct Steps {
    orders: StopOrders,
    pub(crate) reports: Vec<StepReport>,
    hurry: Hurry,
}

/// The number of orders after the first one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hurry {
    None,
    /// Waiting is skipped, deregistering is not.
    Second,
    /// Everything is skipped.
    Third,
}

/// The cause of the end.
pub(crate) enum Ending {
    Ordered(Reason),
    Ended,
    Failed(Step, BoxError),
}

impl Steps {
    pub(crate) fn new(orders: StopOrders) -> Self {
        Self { orders, reports: Vec::new(), hurry: Hurry::None }
    }

    /// Runs a step of the start, until an order or the end of a server.
    pub(crate) async fn up(
        &mut self,
        step: Step,
        server_ended: impl Future<Output = ()>,
        work: impl Future<Output = Result<(), BoxError>>,
    ) -> Result<(), Ending> {
        let begun = Instant::now();
        let done = tokio::select! {
            biased;
            reason = self.orders.stop() => Err(Ending::Ordered(reason)),
            () = server_ended => Err(Ending::Ended),
            done = work => done.map_err(|cause| Ending::Failed(step, cause)),
        };
        let outcome = match &done {
            Ok(()) => Outcome::Done,
            Err(Ending::Ordered(_) | Ending::Ended) if step == Step::Live => Outcome::Done,
            Err(Ending::Ordered(_)) => Outcome::Skipped("order to stop"),
            Err(Ending::Ended) => Outcome::Skipped("the server ended"),
            // The cause itself is the error's source.
            Err(Ending::Failed(_, cause)) => Outcome::Failed(chain(&**cause).to_string().into()),
        };
        self.reports.push(StepReport { step, outcome, took: begun.elapsed() });
        done
    }

    /// Runs a step of the stop; in a hurry it is given up.
    pub(crate) async fn down(&mut self, step: Step, work: impl Future<Output = Outcome>) {
        let begun = Instant::now();
        let outcome = match self.hurry {
            Hurry::None => self.unless_hurried(work).await,
            Hurry::Second | Hurry::Third => None,
        };
        self.record(step, outcome, begun);
    }

    /// Runs a step of the stop that has `bound` left after a second order.
    pub(crate) async fn down_in_hurry(
        &mut self,
        step: Step,
        bound: Duration,
        work: impl Future<Output = Outcome> + Send,
    ) {
        let begun = Instant::now();
        let (mut work, mut outcome) = (Box::pin(work), None);
        if self.hurry == Hurry::None {
            outcome = self.unless_hurried(&mut work).await;
        }
        if outcome.is_none() && self.hurry == Hurry::Second {
            let bounded = timeout(bound, work);
            outcome =
                self.unless_hurried(bounded).await.map(|done| done.unwrap_or(Outcome::TimedOut));
        }
        self.record(step, outcome, begun);
    }

    /// The result of `work`, or `None` if another order comes first.
    async fn unless_hurried<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.orders.now() => {
                self.hurry = match self.hurry {
                    Hurry::None => Hurry::Second,
                    Hurry::Second | Hurry::Third => Hurry::Third,
                };
                None
            }
            done = work => Some(done),
        }
    }

    fn record(&mut self, step: Step, outcome: Option<Outcome>, begun: Instant) {
        let outcome = outcome.unwrap_or(Outcome::Skipped(HURRIED));
        if !matches!(outcome, Outcome::Done | Outcome::Skipped(_)) {
            tracing::warn!(%step, %outcome, "step of the stop incomplete");
        }
        self.reports.push(StepReport { step, outcome, took: begun.elapsed() });
    }
}

impl Ending {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Ordered(reason) => *reason,
            Self::Ended => Reason::Ended,
            Self::Failed(..) => Reason::Failed,
        }
    }
}
