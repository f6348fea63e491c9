use std::{
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

/// Bounds the requests whose response has not begun.
///
/// Hundreds of followers start together, and every request opens a connection while none is known
/// to carry several.
#[derive(Debug)]
pub(super) struct Turns {
    permits: Semaphore,
    /// When a request got its response last.
    answered_at: Mutex<Instant>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { permits: Semaphore::new(MAX_TURNS), answered_at: Mutex::new(Instant::now()) }
    }

    /// Waits for a turn. `None`: for as long as `bound`, no other request got a response either.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; the place in the queue is lost.
    pub(super) async fn next(&self, bound: Duration) -> Option<SemaphorePermit<'_>> {
        // An `Instant` cannot be as far away as a `Duration` is long.
        let (began, bound) = (Instant::now(), bound.min(Duration::from_secs(30 * 24 * 3600)));
        let mut permit = pin!(self.permits.acquire());
        loop {
            let until = began.max(*self.answered_at()) + bound;
            match timeout_at(until, &mut permit).await {
                // The semaphore is never closed.
                Ok(permit) => return permit.ok(),
                Err(_elapsed) if until < *self.answered_at() + bound => {}
                Err(_elapsed) => return None,
            }
        }
    }

    /// A request has ended, with a response or without.
    pub(super) fn ended(&self, is_answered: bool) {
        if is_answered {
            *self.answered_at() = Instant::now();
        }
    }

    fn answered_at(&self) -> MutexGuard<'_, Instant> {
        self.answered_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const MAX_TURNS: usize = 4;

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::time::sleep;

    use super::*;

    /// Takes a turn, and this long for a response.
    async fn request(turns: &Turns, takes: Duration, is_answered: bool) -> bool {
        let Some(_permit) = turns.next(BOUND).await else { return false };
        sleep(takes).await;
        turns.ended(is_answered);
        true
    }

    /// Each response takes less than the bound, and all of them together more.
    #[tokio::test(start_paused = true)]
    async fn wait_behind_requests_that_get_responses_is_not_bounded() {
        let (turns, takes) = (Turns::new(), BOUND / 2);
        let all = join_all((0..MAX_TURNS * 10).map(|_| request(&turns, takes, true))).await;
        assert!(all.into_iter().all(|had_turn| had_turn));
    }

    #[tokio::test(start_paused = true)]
    async fn wait_behind_requests_without_a_response_is_bounded() {
        let turns = Turns::new();
        sleep(BOUND * 3).await;
        let (began, takes) = (Instant::now(), BOUND * 2);
        let all = join_all((0..MAX_TURNS + 1).map(|_| request(&turns, takes, false))).await;
        assert_eq!(all.iter().filter(|had_turn| !**had_turn).count(), 1);
        assert_eq!(began.elapsed(), takes);
    }

    const BOUND: Duration = Duration::from_secs(10);
}
