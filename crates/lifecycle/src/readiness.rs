use std::fmt;

use tokio::sync::watch;
use tower_sd_core::{CheckResult, HealthCheck, async_trait};

/// The readiness of a server for requests, as `/ready` reports it.
///
/// `Clone` shares it. A [`Lifecycle`](crate::Lifecycle) moves it forward: a server that drains is
/// never ready again. Between its start and its drain it follows the server's health. `Display`
/// prints `starting`, `ready`, `unhealthy`, `draining` or `closing`.
///
/// ```
/// use tower_sd::lifecycle::Readiness;
///
/// let readiness = Readiness::new();
/// assert!(!readiness.is_ready());
/// assert_eq!(readiness.to_string(), "starting");
/// ```
#[derive(Clone, Debug)]
pub struct Readiness(watch::Sender<State>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct State {
    phase: Phase,
    is_healthy: bool,
}

/// The phase of a server's life.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Phase {
    /// It listens, and is not ready.
    Starting,
    /// It accepts requests.
    Ready,
    /// It still responds, and should get no more requests.
    Draining,
    /// Like `Draining`; connections of HTTP/1 are closed with their next response.
    Closing,
}

impl Readiness {
    /// Creates the readiness of a server that is starting, and healthy.
    pub fn new() -> Self {
        Self(watch::Sender::new(State { phase: Phase::Starting, is_healthy: true }))
    }

    /// Moves to `phase`, unless that phase is over.
    pub(crate) fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|state| {
            let is_forward = state.phase < phase;
            state.phase = phase.max(state.phase);
            is_forward
        });
    }

    /// Sets the health: while it is false, the server is not ready in any phase.
    pub fn set_healthy(&self, is_healthy: bool) {
        self.0.send_if_modified(|state| {
            std::mem::replace(&mut state.is_healthy, is_healthy) != is_healthy
        });
    }

    /// Returns `check`, which also sets the health to false while it is critical.
    ///
    /// For [`Registration::health`](tower_sd_core::Registration::health): one check is then shown
    /// by the registry, `/ready` and `grpc.health.v1` alike. A check that panics, or is dropped
    /// because it hangs, is critical.
    pub fn follow<C: HealthCheck>(&self, check: C) -> impl HealthCheck + use<C> {
        Followed { readiness: self.clone(), check }
    }

    #[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "for the close of connections"))]
    pub(crate) fn phase(&self) -> Phase {
        self.0.borrow().phase
    }

    /// Whether the server accepts requests now.
    pub fn is_ready(&self) -> bool {
        self.0.borrow().is_ready()
    }

    /// Whether the server is stopping.
    pub fn is_draining(&self) -> bool {
        self.0.borrow().is_draining()
    }

    /// Waits until the server is ready, or will never be; whether it is.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn ready(&self) -> bool {
        let mut changes = self.0.subscribe();
        // Only fails without a sender, and this is one.
        let state = changes.wait_for(|state| state.is_ready() || state.is_draining()).await;
        state.is_ok_and(|state| state.is_ready())
    }

    #[cfg_attr(not(feature = "tonic"), expect(dead_code, reason = "for the health service"))]
    pub(crate) fn states(&self) -> watch::Receiver<State> {
        self.0.subscribe()
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    pub(crate) fn is_ready(self) -> bool {
        self.phase == Phase::Ready && self.is_healthy
    }

    pub(crate) fn is_draining(self) -> bool {
        self.phase >= Phase::Draining
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { phase, is_healthy } = *self.0.borrow();
        f.write_str(match phase {
            Phase::Starting => "starting",
            Phase::Ready if is_healthy => "ready",
            Phase::Ready => "unhealthy",
            Phase::Draining => "draining",
            Phase::Closing => "closing",
        })
    }
}

/// A check whose result is a readiness's health.
struct Followed<C> {
    readiness: Readiness,
    check: C,
}

/// Sets the health to false, unless the check ends.
struct Unhealthy<'a>(Option<&'a Readiness>);

#[async_trait]
impl<C: HealthCheck> HealthCheck for Followed<C> {
    async fn check(&self) -> CheckResult {
        let mut unhealthy = Unhealthy(Some(&self.readiness));
        let health = self.check.check().await;
        unhealthy.0 = None;
        self.readiness.set_healthy(!matches!(health, CheckResult::Critical(_)));
        health
    }
}

impl Drop for Unhealthy<'_> {
    fn drop(&mut self) {
        if let Some(readiness) = self.0 {
            readiness.set_healthy(false);
        }
    }
}
