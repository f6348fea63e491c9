use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use crate::{CheckResult, HealthCheck, panics::contained};

/// The server's own check, and the time of its next run.
pub(super) struct Check {
    pub(super) check: Option<Arc<dyn HealthCheck>>,
    pub(super) interval: Option<Duration>,
    pub(super) at: Instant,
}

impl Check {
    /// `None` without a check.
    pub(super) fn at(&self) -> Option<Instant> {
        self.check.as_ref().map(|_| self.at)
    }

    pub(super) fn again_by(&mut self, at: Instant) {
        self.at = self.at.min(at);
    }

    /// Runs the check; the next run is due before the next renewal.
    pub(super) async fn run(&mut self, bound: Duration, renew_interval: Duration) -> CheckResult {
        let Some(check) = &self.check else {
            return CheckResult::Passing;
        };
        let checked = timeout(bound, contained(|| check.check())).await;
        let before_renewal = renew_interval.mul_f64(0.9);
        let interval = self.interval.map_or(before_renewal, |it| it.min(before_renewal));
        self.at = Instant::now() + interval;
        match checked {
            Ok(Some(health)) => health,
            Ok(None) => CheckResult::Critical("the health check panicked".to_owned()),
            Err(_elapsed) => {
                CheckResult::Critical(format!("no answer of the health check within {bound:?}"))
            }
        }
    }
}
