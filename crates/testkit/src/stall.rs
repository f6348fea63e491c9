//! How late the machine was, for tests that assert a time.

use std::{pin::pin, time::Duration};

use tokio::{
    select,
    time::{Instant, sleep, sleep_until},
};

/// Runs `future`, and returns by how much this task was woken too late at most.
///
/// No code under test can be in time by more than that: a bound that holds on an idle machine is
/// the bound plus this on a busy one. The future's own work in one poll is part of it.
///
/// ```
/// use std::{thread, time::Duration};
///
/// use tower_sd_testkit::stall::with_stall;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let late = Duration::from_millis(50);
/// let work = async {
///     tokio::time::sleep(late).await;
///     thread::sleep(late * 2);
///     tokio::task::yield_now().await;
/// };
/// let ((), stall) = with_stall(work).await;
/// assert!(stall >= late, "{stall:?}");
/// # }
/// ```
///
/// # Cancel safety
///
/// Cancel safe if the future is.
pub async fn with_stall<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let (mut future, mut worst) = (pin!(future), Duration::ZERO);
    loop {
        let due = Instant::now() + TICK;
        let ended = select! {
            output = &mut future => Some(output),
            () = sleep_until(due) => None,
        };
        worst = worst.max(due.elapsed());
        if let Some(output) = ended {
            return (output, worst);
        }
    }
}

/// Runs `future` for at most `bound`, without the stalls of the machine.
///
/// The clock of the bound stands still while this task is woken too late. `None`: it takes longer.
///
/// ```
/// use std::{thread, time::Duration};
///
/// use tokio::time::sleep;
/// use tower_sd_testkit::stall::within;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let bound = Duration::from_millis(100);
/// let stalled = async {
///     thread::sleep(bound * 3);
///     sleep(bound / 4).await;
/// };
/// assert!(within(bound, stalled).await.is_some());
/// assert!(within(bound, sleep(bound * 5)).await.is_none());
/// # }
/// ```
///
/// # Cancel safety
///
/// Cancel safe if the future is.
pub async fn within<T>(bound: Duration, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut left) = (pin!(future), bound);
    while !left.is_zero() {
        let start = Instant::now();
        select! {
            biased;
            output = &mut future => return Some(output),
            () = sleep(TICK) => left = left.saturating_sub(start.elapsed().min(TICK * 2)),
        }
    }
    None
}

const TICK: Duration = Duration::from_millis(5);
