use std::{
    future::{Future, pending},
    mem,
    time::Duration,
};

use tokio::time::{sleep, timeout};
use tower_sd_core::BoxError;

use crate::{
    Lifecycle, LifecycleError, Listener, Readiness, Report, ShutdownSignal,
    hooks::{self, Hooks},
    lifecycle::{Timing, boxed},
    readiness::Phase,
    registrations::Members,
    report::{NOT_NEEDED, Outcome, Reason, Step},
    server::{Servers, Serving},
    steps::{Ending, Steps},
    stop_orders::StopOrders,
};

impl Lifecycle {
    /// Lives, and returns when all servers have stopped. The report is logged too.
    ///
    /// `serve` takes the listener and the request to drain; it ends when its last request has. It
    /// runs in a task of its own. With the features `axum` and `tonic`, `serve_axum` and
    /// `serve_tonic` are two of them.
    ///
    /// # Errors
    ///
    /// A step of the start fails, or a server ends with an error or panics. It is then deregistered
    /// immediately, and everything else is stopped in the right order. A failure during the stop is
    /// in the [`Report`] only.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the servers are aborted and their connections are cut; the registrations are
    /// withdrawn in the background, as far as the runtime lives.
    pub async fn run<S, F, E>(
        self,
        listener: impl Into<Listener> + Send,
        serve: S,
    ) -> Result<Report, LifecycleError>
    where
        S: FnOnce(Listener, ShutdownSignal) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        run(self, listener.into(), boxed(serve)).await
    }
}

/// From the first step to the last. `listener` is the one that is advertised by default.
async fn run(
    lifecycle: Lifecycle,
    listener: Listener,
    serve: Serving,
) -> Result<Report, LifecycleError> {
    let Lifecycle { orders, hooks, readiness, advertise, others, registering, views, timing } =
        lifecycle;
    let early = |step, cause| {
        let report = Report { reason: Reason::Failed, steps: Vec::new(), n_aborted: 0 };
        LifecycleError::new(step, cause, report)
    };
    let orders = StopOrders::new(orders).map_err(|error| early(Step::Serve, error.into()))?;
    let mut serving = vec![(listener, serve)];
    serving.extend(others.0);
    let listeners = serving.iter().map(|(listener, _)| listener).collect::<Vec<_>>();
    let members = Members::new(registering, views, &advertise, &listeners, timing.deregister);
    let members = members.map_err(|cause| early(Step::Register, cause))?;
    let connections = listeners.iter().map(|listener| listener.connections()).collect();
    let mut run = Run {
        steps: Steps::new(orders),
        servers: Servers::new(connections),
        members,
        hooks,
        readiness,
        timing,
        was_ready: false,
    };
    let ending = match run.live(serving).await {
        Ok(()) => Ending::Ended,
        Err(ending) => ending,
    };
    run.stop(ending).await
}

/// A life that has begun.
struct Run {
    steps: Steps,
    servers: Servers,
    members: Members,
    hooks: Hooks,
    readiness: Readiness,
    timing: Timing,
    was_ready: bool,
}

impl Run {
    /// Starts, and lives until the cause of its end.
    async fn live(&mut self, serving: Vec<(Listener, Serving)>) -> Result<(), Ending> {
        let Self { steps, servers, members, hooks, readiness, was_ready, .. } = self;
        let (warm_up, started) =
            (mem::take(&mut hooks.before_ready), mem::take(&mut hooks.after_start));
        steps.up(Step::Serve, pending(), async { Ok(()) }).await?;
        servers.start(serving, readiness);
        steps.up(Step::Ready, servers.one_ended(), hooks::run(warm_up)).await?;
        readiness.advance(Phase::Ready);
        *was_ready = true;
        if members.are_wanted() {
            steps.up(Step::Register, servers.one_ended(), members.register()).await?;
        }
        let live = async {
            hooks::run(started).await?;
            pending::<Result<(), BoxError>>().await
        };
        steps.up(Step::Live, servers.one_ended(), live).await
    }

    async fn stop(mut self, ending: Ending) -> Result<Report, LifecycleError> {
        let reason = ending.reason();
        tracing::info!(%reason, "stopping");
        self.readiness.advance(Phase::Draining);
        let is_listed = self.members.may_be_listed();
        let Self { steps, members, servers, timing, .. } = &mut self;
        steps.down(Step::Unready, unready(members, servers, timing)).await;
        // Also in a hurry, for a moment: the one call that keeps clients away.
        let leave = members.deregister(timing.deregister);
        steps.down_in_hurry(Step::Deregister, HURRIED_DEREGISTER, leave).await;
        // Before it was ready, no client was sent to it.
        let default = if is_listed { PROPAGATION } else { Duration::ZERO };
        let wait = self.timing.propagation.filter(|_| self.was_ready).unwrap_or(default);
        let propagate = propagate(&self.servers, &self.readiness, wait);
        self.steps.down(Step::Propagate, propagate).await;
        self.readiness.advance(Phase::Closing);
        let drain = drain(&mut self.servers, self.timing.drain);
        self.steps.down(Step::Drain, drain).await;
        // Also without the time for it: the accepting has to end.
        self.servers.stop();
        let n_aborted = self.servers.abort();
        let before_exit = hooks::run_all(self.hooks.before_exit, self.timing.hook);
        self.steps.down(Step::Stop, before_exit).await;
        let served = self.servers.end(END).await;
        let report = Report { reason, steps: self.steps.reports, n_aborted };
        tracing::info!("{report}");
        match (ending, served) {
            (Ending::Failed(step, cause), _) => Err(LifecycleError::new(step, cause, report)),
            (_, Err(cause)) => Err(LifecycleError::new(Step::Serve, cause, report)),
            (Ending::Ordered(_) | Ending::Ended, Ok(())) => Ok(report),
        }
    }
}

async fn unready(members: &Members, servers: &Servers, timing: &Timing) -> Outcome {
    if servers.are_over() {
        return Outcome::Skipped(NOT_NEEDED);
    }
    match timing.maintenance {
        // The servers are not ready; a registry may have had nothing to show.
        Some(bound) => match members.drain(bound).await {
            Outcome::Skipped(_) => Outcome::Done,
            outcome => outcome,
        },
        None => Outcome::Done,
    }
}

async fn propagate(servers: &Servers, readiness: &Readiness, wait: Duration) -> Outcome {
    if servers.are_over() || wait.is_zero() {
        return Outcome::Skipped(NOT_NEEDED);
    }
    sleep(wait.saturating_sub(CLOSING)).await;
    readiness.advance(Phase::Closing);
    sleep(wait.min(CLOSING)).await;
    Outcome::Done
}

async fn drain(servers: &mut Servers, bound: Duration) -> Outcome {
    if servers.are_over() && servers.n_open() == 0 {
        return Outcome::Skipped(NOT_NEEDED);
    }
    match timeout(bound, servers.drain()).await {
        Ok(()) => Outcome::Done,
        Err(_elapsed) => Outcome::TimedOut,
    }
}

/// A watch or a blocking query answers within milliseconds, and clients publish a removal after 50
/// to 150 ms.
const PROPAGATION: Duration = Duration::from_secs(1);
/// The last part of the propagation, in which connections are closed with their next response.
///
/// Not earlier: every request of a client that still has the instance would be a new connection.
const CLOSING: Duration = Duration::from_secs(1);
/// Ten times what a registry in health needs.
const HURRIED_DEREGISTER: Duration = Duration::from_secs(1);
/// A connection that is cut and a task that is aborted end at their next poll.
const END: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registrations::ANSWER;

    #[test]
    fn documented_longest_stop_is_the_sum_of_the_bounds() {
        let Timing { maintenance, deregister, drain, .. } = Lifecycle::new().timing;
        let registered = maintenance.unwrap() + deregister + ANSWER;
        let default = registered + PROPAGATION + drain + END;
        // The example has no registration, and waits for 5 s.
        let kubernetes = Duration::from_secs(5) + drain + END;
        for (sum, page) in [
            (default, include_str!("../README.md")),
            (default, include_str!("lifecycle.rs")),
            (kubernetes, include_str!("../examples/server_kubernetes.rs")),
        ] {
            let documented = format!("at most {} s", sum.as_secs());
            assert!(page.contains(&documented), "{documented}: {page}");
        }
    }
}
