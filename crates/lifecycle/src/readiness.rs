use tokio::sync::watch;

/// Whether the server wants requests: what `/ready` answers.
///
/// `Clone` shares it. It goes forward only: a server that drains is never ready again.
///
/// ```
/// use tower_sd_lifecycle::{Phase, Readiness};
///
/// let readiness = Readiness::new();
/// assert!(!readiness.is_ready());
/// readiness.advance(Phase::Ready);
/// assert!(readiness.is_ready());
/// readiness.advance(Phase::Draining);
/// readiness.advance(Phase::Ready);
/// assert_eq!(readiness.phase(), Phase::Draining);
/// ```
#[derive(Clone, Debug)]
pub struct Readiness(watch::Sender<Phase>);

/// Where a server's life has got to.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Phase {
    /// It listens, and is not ready.
    Starting,
    /// It wants requests.
    Ready,
    /// It answers what comes, and wants nothing more.
    Draining,
}

impl Readiness {
    /// Starting.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(Phase::Starting))
    }

    /// Goes on to `phase`; stays where it is if it has been there.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|current| {
            let forward = *current < phase;
            *current = phase.max(*current);
            forward
        });
    }

    /// Where it is now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Whether it wants requests now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase() == Phase::Ready
    }

    /// Whether it is on its way out.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.phase() == Phase::Draining
    }

    /// Waits until it has come to `phase` or further, and returns where it is: to drive a gRPC health service, say.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn reached(&self, phase: Phase) -> Phase {
        let mut changes = self.0.subscribe();
        // Only fails without a sender, and this is one.
        let reached = changes.wait_for(|current| *current >= phase).await;
        reached.map_or(Phase::Draining, |current| *current)
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Phase {
    /// `"starting"`, `"ready"`, `"draining"`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}
