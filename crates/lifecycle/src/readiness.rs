use tokio::sync::watch;
use tower_sd_core::{CheckResult, HealthCheck, async_trait};

/// The readiness of a server for requests, as `/ready` reports it.
///
/// `Clone` shares it. Its phase goes forward only: a server that drains is never ready again. Within
/// the phase [`Ready`](ReadinessState::Ready) it follows the server's health.
///
/// ```
/// use tower_sd_lifecycle::{ReadinessState, Readiness};
///
/// let readiness = Readiness::new();
/// assert!(!readiness.is_ready());
/// readiness.advance(ReadinessState::Ready);
/// assert!(readiness.is_ready());
/// readiness.set_healthy(false);
/// assert!(!readiness.is_ready());
/// readiness.set_healthy(true);
/// assert!(readiness.is_ready());
/// readiness.advance(ReadinessState::Draining);
/// readiness.advance(ReadinessState::Ready);
/// assert_eq!(readiness.phase(), ReadinessState::Draining);
/// ```
#[derive(Clone, Debug)]
pub struct Readiness(watch::Sender<State>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct State {
    phase: ReadinessState,
    is_healthy: bool,
}

/// The phase of a server's life.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum ReadinessState {
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
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(State { phase: ReadinessState::Starting, is_healthy: true }))
    }

    /// Goes on to `phase`; stays if that phase is over.
    pub fn advance(&self, phase: ReadinessState) {
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

    /// Returns `check`, which also sets the health: false while it is critical.
    ///
    /// For [`Registration::health`](tower_sd_core::Registration::health): one check is then shown by
    /// the registry, `/ready` and `grpc.health.v1` alike. A check that panics, or is dropped because it
    /// hangs, is critical.
    pub fn follow<C: HealthCheck>(&self, check: C) -> impl HealthCheck + use<C> {
        Followed { readiness: self.clone(), check }
    }

    /// Returns the current phase.
    #[must_use]
    pub fn phase(&self) -> ReadinessState {
        self.0.borrow().phase
    }

    /// Whether the server accepts requests now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.borrow().is_ready()
    }

    /// Whether the server is on its way out.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.phase() >= ReadinessState::Draining
    }

    /// Waits for `phase` or a later one, and returns the current phase.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn reached(&self, phase: ReadinessState) -> ReadinessState {
        let mut changes = self.0.subscribe();
        // Only fails without a sender, and this is one.
        let reached = changes.wait_for(|state| state.phase >= phase).await;
        reached.map_or(ReadinessState::Closing, |state| state.phase)
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
        self.phase == ReadinessState::Ready && self.is_healthy
    }

    #[cfg_attr(not(feature = "tonic"), expect(dead_code, reason = "for the health service"))]
    pub(crate) fn is_draining(self) -> bool {
        self.phase >= ReadinessState::Draining
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

impl ReadinessState {
    /// Returns `"starting"`, `"ready"`, `"draining"` or `"closing"`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Closing => "closing",
        }
    }
}
