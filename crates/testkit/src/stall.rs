//! How late the machine was, for tests that assert a time.

use std::{pin::pin, time::Duration};

use tokio::{
    select,
    time::{Instant, sleep_until},
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

const TICK: Duration = Duration::from_millis(5);
