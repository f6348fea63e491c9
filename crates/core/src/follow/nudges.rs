use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Paces the reads which failing endpoints request: jittered, and ever rarer while the requests go
/// on.
///
/// Endpoints of all clients fail together, and a service that is down but listed keeps failing.
#[derive(Debug)]
pub(super) struct Nudges {
    notify: Arc<Notify>,
    interval: Duration,
    /// The earliest time of the next read.
    next: Instant,
    /// A request that waits for its time.
    due: Option<Instant>,
}

impl Nudges {
    pub(super) fn new(notify: Arc<Notify>) -> Self {
        Self { notify, interval: FIRST, next: Instant::now(), due: None }
    }

    /// Resolves when a requested read is due.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a request that waits stays.
    pub(super) async fn due(&mut self, rng: &mut Rng) {
        let at = match self.due {
            Some(at) => at,
            None => {
                self.notify.notified().await;
                let soonest = Instant::now().max(self.next);
                *self.due.insert(soonest + FIRST.mul_f64(rng.f64()))
            }
        };
        sleep_until(at).await;
        self.due = None;
        let now = Instant::now();
        let calm = now.duration_since(self.next) > self.interval;
        self.interval = if calm { FIRST } else { (self.interval * 2).min(LONGEST) };
        self.next = now + self.interval;
    }
}

const FIRST: Duration = Duration::from_secs(1);
/// A tenth of the clients of a large service that is down still read every second or two.
const LONGEST: Duration = Duration::from_secs(15);
