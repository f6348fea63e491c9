use std::{
    future::{Future, pending},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tower_sd_core::{BoxError, Instance, MemoryRegistry};
use tower_sd_lifecycle::{Lifecycle, LifecycleError, Listener, Readiness, Report, ShutdownSignal};

/// A lifecycle that stops by a token, and what a test can observe of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scene {
    pub(crate) registry: MemoryRegistry,
    pub(crate) readiness: Readiness,
    pub(crate) stop: CancellationToken,
    pub(crate) stop_now: CancellationToken,
    seen: Arc<Mutex<Vec<String>>>,
}

/// A life in the background.
#[derive(Debug)]
pub(crate) struct Running(JoinSet<Result<Report, LifecycleError>>);

impl Scene {
    pub(crate) fn unregistered(&self) -> Lifecycle {
        Lifecycle::new()
            .ignore_signals()
            .readiness(&self.readiness)
            .shutdown_on(self.stop.clone())
            .abort_on(self.stop_now.clone())
    }

    pub(crate) fn lifecycle(&self) -> Lifecycle {
        self.unregistered().register(self.registry.clone(), "a")
    }

    pub(crate) fn entries(&self) -> Vec<Instance> {
        self.registry.entries("a")
    }

    pub(crate) fn saw(&self, what: impl Into<String>) {
        self.seen.lock().expect("no panic").push(what.into());
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").clone()
    }

    /// Starts, and waits for the first millisecond.
    pub(crate) async fn start(&self, lifecycle: Lifecycle) -> Running {
        let scene = self.clone();
        self.start_with(lifecycle, move |_listener, drain| async move {
            scene.saw("serves");
            drain.await;
            scene.saw("drains");
            Ok(())
        })
        .await
    }

    pub(crate) async fn start_with<F>(
        &self,
        lifecycle: Lifecycle,
        serve: impl FnOnce(Listener, ShutdownSignal) -> F + Send + 'static,
    ) -> Running
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let listener = Listener::bind("127.0.0.1:0").await.expect("a free port");
        let mut running = JoinSet::new();
        running.spawn(lifecycle.run(listener, serve));
        sleep(Duration::from_millis(1)).await;
        Running(running)
    }
}

impl Running {
    pub(crate) async fn end(mut self) -> Result<Report, LifecycleError> {
        self.0.join_next().await.expect("it runs").expect("no panic")
    }

    /// Its end, and the time until then.
    pub(crate) async fn end_within(
        self,
        bound: Duration,
    ) -> (Result<Report, LifecycleError>, Duration) {
        let begun = Instant::now();
        let ended = self.end().await;
        let took = begun.elapsed();
        assert!(took <= bound, "{took:?}: {ended:?}");
        (ended, took)
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_join_next().is_some()
    }
}

/// The outcome of a step as the report prints it, without its duration.
pub(crate) fn outcome(report: &Report, step: &str) -> String {
    let printed = report.to_string();
    let steps = printed.split_once(": ").map_or("", |(_reason, steps)| steps);
    let outcome = steps.split(", ").find_map(|it| it.strip_prefix(step)?.strip_prefix(' '));
    let outcome = outcome.unwrap_or("absent");
    let cut = outcome.rfind(" in ").or_else(|| outcome.rfind(" after "));
    outcome[..cut.unwrap_or(outcome.len())].to_owned()
}

pub(crate) async fn never(_listener: Listener, _drain: ShutdownSignal) -> Result<(), BoxError> {
    pending().await
}
