use std::{
    future::{Future, pending},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use tower_sd_core::{BoxError, RegistrationHandle};

use crate::{
    Connections, Drain, Failed, Lifecycle, Listener, Outcome, Phase, Readiness, Reason, Report,
    Step, StepReport,
    hooks::Hooks,
    lifecycle::{Registering, Timing},
    orders::Orders,
    report::{HURRIED, NOT_NEEDED},
    server::Server,
    steps::{deregister, enter_maintenance},
};

/// From the first step to the last.
pub(crate) async fn run<S, F, E>(
    lifecycle: Lifecycle,
    listener: Listener,
    serve: S,
) -> Result<Report, Failed>
where
    S: FnOnce(Listener, Drain) -> F + Send,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<BoxError>,
{
    let Lifecycle { orders, hooks, readiness, advertise, registering, timing } = lifecycle;
    let early = |step, cause| {
        let report = Report { reason: Reason::Failed, steps: Vec::new(), cut: 0 };
        Failed::new(step, cause, report)
    };
    let orders = Orders::new(orders).map_err(|error| early(Step::Serve, error.into()))?;
    let registering = match registering {
        None => None,
        Some(Registering { registrar, registration }) => {
            // What cannot be advertised is found out before anything begins.
            let address = listener.local_addr().map_err(|e| early(Step::Register, e.into()))?;
            let instance = advertise.instance(address);
            let instance = instance.map_err(|e| early(Step::Register, e.into()))?;
            Some((registrar, registration(instance).deregister_timeout(timing.deregister)))
        }
    };
    let mut run = Run {
        connections: CutOnDrop(listener.connections()),
        server: Server::default(),
        steps: Vec::new(),
        hurried: false,
        orders,
        hooks,
        readiness,
        timing,
    };
    let mut handle = None;
    let ending = match run.start(listener, serve, registering, &mut handle).await {
        Ok(()) => run.live().await,
        Err(ending) => ending,
    };
    run.readiness.advance(Phase::Draining);
    run.stop(ending, handle).await
}

/// A life that has begun.
struct Run {
    orders: Orders,
    hooks: Hooks,
    server: Server,
    connections: CutOnDrop,
    readiness: Readiness,
    timing: Timing,
    steps: Vec<StepReport>,
    /// A second order to stop has come.
    hurried: bool,
}

/// For a life that is dropped in the middle.
struct CutOnDrop(Connections);

/// Why it ends.
enum Ending {
    Told(Reason),
    Ended,
    Failed(Step, BoxError),
}

type ToRegister = (Box<dyn tower_sd_core::Registrar>, tower_sd_core::Registration);

impl Run {
    async fn start<S, F, E>(
        &mut self,
        listener: Listener,
        serve: S,
        registering: Option<ToRegister>,
        handle: &mut Option<RegistrationHandle>,
    ) -> Result<(), Ending>
    where
        S: FnOnce(Listener, Drain) -> F + Send,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.up(Step::Serve, async { Ok(()) }).await?;
        self.server.start(self.readiness.clone(), |drain| serve(listener, drain));
        self.up(Step::Ready, async { Ok(()) }).await?;
        self.readiness.advance(Phase::Ready);
        if let Some((registrar, registration)) = registering {
            let register = async { Ok(registrar.register(registration).await?) };
            *handle = Some(self.up(Step::Register, register).await?);
        }
        Ok(())
    }

    /// Until something ends it.
    async fn live(&mut self) -> Ending {
        let begun = Instant::now();
        let hooks = self.hooks.take(Step::Live);
        let life = async {
            match hooks.run().await {
                Ok(()) => pending().await,
                Err(cause) => Ending::Failed(Step::Live, cause),
            }
        };
        let ending = tokio::select! {
            biased;
            reason = self.orders.stop() => Ending::Told(reason),
            () = self.server.ended() => Ending::Ended,
            ending = life => ending,
        };
        let outcome = ending.outcome().unwrap_or(Outcome::Done);
        let took = begun.elapsed();
        self.steps.push(StepReport { step: Step::Live, outcome, hook: None, took });
        ending
    }

    async fn stop(
        mut self,
        ending: Ending,
        handle: Option<RegistrationHandle>,
    ) -> Result<Report, Failed> {
        let reason = ending.reason();
        tracing::info!(%reason, "stopping");
        let registered = handle.is_some();
        let maintenance = self.timing.maintenance;
        self.down(Step::Unready, unready(handle.as_ref(), maintenance)).await;
        self.down(Step::Deregister, withdraw(handle, self.timing.deregister)).await;
        self.propagate(registered).await;
        self.drain().await;
        let cut = self.connections.0.n_open();
        self.connections.0.cut();
        self.down(Step::Stop, async { Outcome::Done }).await;
        let Self { server, steps, .. } = self;
        let served = server.end(END).await;
        let report = Report { reason, steps, cut };
        tracing::info!(%report, "stopped");
        match (ending, served) {
            (Ending::Failed(step, cause), _) => Err(Failed::new(step, cause, report)),
            (_, Err(cause)) => Err(Failed::new(Step::Serve, cause, report)),
            (Ending::Told(_) | Ending::Ended, Ok(())) => Ok(report),
        }
    }

    async fn propagate(&mut self, registered: bool) {
        let default = if registered { PROPAGATION } else { Duration::ZERO };
        let wait = self.timing.propagation.unwrap_or(default);
        // Nobody is left to serve meanwhile.
        let ended = self.server.has_ended();
        let act = async move {
            if ended || wait.is_zero() {
                return Outcome::Skipped(NOT_NEEDED);
            }
            sleep(wait).await;
            Outcome::Done
        };
        self.down(Step::Propagate, act).await;
    }

    async fn drain(&mut self) {
        let hooks = self.hooks.take(Step::Drain).run_all(self.timing.hook);
        let begun = Instant::now();
        let mut hook = None;
        let (server, deadline) = (&mut self.server, self.timing.drain);
        let connections = &self.connections.0;
        let drained = async {
            hook = hooks.await;
            if server.has_ended() {
                return Outcome::Skipped(NOT_NEEDED);
            }
            let drained = async {
                // Not the server first: it would reset what waits to be accepted, and what has just been.
                connections.stop_accepting();
                if timeout(LAST_REQUESTS, connections.quiet()).await.is_err() {
                    tracing::debug!("connections are idle, or busy for longer");
                }
                server.drain();
                server.ended().await;
                // Those that were upgraded outlive it.
                connections.none_open().await;
            };
            match timeout(deadline, drained).await {
                Ok(()) => Outcome::Done,
                Err(_elapsed) => Outcome::TimedOut,
            }
        };
        let outcome = unless_hurried(&mut self.orders, &mut self.hurried, drained).await;
        // Also without the time for it: what accepts has to end.
        self.server.drain();
        self.steps.push(StepReport { step: Step::Drain, outcome, hook, took: begun.elapsed() });
    }

    /// A step of the start, its hooks first.
    async fn up<T>(
        &mut self,
        step: Step,
        act: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, Ending> {
        let begun = Instant::now();
        let hooks = self.hooks.take(step);
        let work = async {
            hooks.run().await?;
            act.await
        };
        let done = tokio::select! {
            biased;
            reason = self.orders.stop() => Err(Ending::Told(reason)),
            () = self.server.ended() => Err(Ending::Ended),
            done = work => done.map_err(|cause| Ending::Failed(step, cause)),
        };
        let outcome = match &done {
            Ok(_) => Outcome::Done,
            Err(Ending::Told(_)) => Outcome::Skipped("told to stop"),
            Err(ending) => ending.outcome().unwrap_or(Outcome::Skipped("the server ended")),
        };
        self.steps.push(StepReport { step, outcome, hook: None, took: begun.elapsed() });
        done
    }

    /// A step of the stop, its hooks first; nothing of it when there is no time.
    async fn down(&mut self, step: Step, act: impl Future<Output = Outcome>) {
        let begun = Instant::now();
        let hooks = self.hooks.take(step).run_all(self.timing.hook);
        let mut hook = None;
        let work = async {
            hook = hooks.await;
            act.await
        };
        let outcome = unless_hurried(&mut self.orders, &mut self.hurried, work).await;
        if !matches!(outcome, Outcome::Done | Outcome::Skipped(_)) {
            tracing::warn!(%step, %outcome, "a step of the stop did not do its work");
        }
        self.steps.push(StepReport { step, outcome, hook, took: begun.elapsed() });
    }
}

impl Ending {
    fn reason(&self) -> Reason {
        match self {
            Self::Told(reason) => *reason,
            Self::Ended => Reason::Ended,
            Self::Failed(..) => Reason::Failed,
        }
    }

    /// What it is for the step that it ended, where it failed. The cause itself is the error's source.
    fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Failed(_, cause) => Some(Outcome::Failed(cause.to_string().into())),
            Self::Told(_) | Self::Ended => None,
        }
    }
}

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// A second order gives up what is being done, and everything after it.
async fn unless_hurried(
    orders: &mut Orders,
    hurried: &mut bool,
    work: impl Future<Output = Outcome>,
) -> Outcome {
    if *hurried {
        return Outcome::Skipped(HURRIED);
    }
    tokio::select! {
        biased;
        () = orders.now() => {
            *hurried = true;
            Outcome::Skipped(HURRIED)
        }
        outcome = work => outcome,
    }
}

async fn unready(handle: Option<&RegistrationHandle>, maintenance: Option<Duration>) -> Outcome {
    match (handle, maintenance) {
        (Some(handle), Some(bound)) => match enter_maintenance(handle, bound).await {
            // The server itself is not ready; there was nothing to tell a registry.
            Outcome::Skipped(_) => Outcome::Done,
            outcome => outcome,
        },
        _ => Outcome::Done,
    }
}

async fn withdraw(handle: Option<RegistrationHandle>, bound: Duration) -> Outcome {
    match handle {
        // The handle has the same bound, and says more when it is over.
        Some(handle) => deregister(handle, bound + END).await,
        None => Outcome::Skipped(NOT_NEEDED),
    }
}

/// A watch or a blocking query answers within milliseconds, and clients publish a removal after 50 to 150 ms.
const PROPAGATION: Duration = Duration::from_secs(1);
/// A connection that was accepted last has sent its request by then, and one that is used was closed with its answer; those
/// that are left are idle, or speak HTTP/2, which says goodbye safely.
const LAST_REQUESTS: Duration = Duration::from_millis(250);
/// What has been cut or aborted ends at its next poll.
const END: Duration = Duration::from_secs(1);
