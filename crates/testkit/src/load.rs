//! Requests at a rate, for tests that assert their times.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// The ends of requests that were [`paced`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Paced<E> {
    /// In the order of the starts.
    pub times: Vec<Duration>,
    /// In the order of the ends.
    pub errors: Vec<E>,
}

/// Starts `n` requests, with a pause after each, and waits for their ends.
///
/// A busy machine starts fewer in the same time, and none to make up for it.
///
/// # Panics
///
/// With a request that panics.
///
/// # Cancel safety
///
/// Dropped early, it ends the requests.
pub async fn paced<T, E>(
    n: usize,
    interval: Duration,
    mut request: impl FnMut(usize) -> T,
) -> Paced<E>
where
    T: Future<Output = Result<(), E>> + Send + 'static,
    E: Send + 'static,
{
    let mut running = JoinSet::new();
    for i in 0..n {
        let request = request(i);
        running.spawn(async move {
            let begun = Instant::now();
            (i, request.await, begun.elapsed())
        });
        sleep(interval).await;
    }
    let mut paced = Paced { times: vec![Duration::ZERO; n], errors: Vec::new() };
    while let Some(ended) = running.join_next().await {
        let (i, outcome, time) = ended.expect("no request panics");
        paced.times[i] = time;
        paced.errors.extend(outcome.err());
    }
    paced
}

impl<E> Paced<E> {
    /// The longest time.
    pub fn slowest(&self) -> Duration {
        self.times.iter().copied().max().unwrap_or_default()
    }

    /// The time that 99 of 100 do not exceed, among those after the first `n`.
    ///
    /// # Panics
    ///
    /// With no such request.
    pub fn p99_after(&self, n: usize) -> Duration {
        let mut times = self.times[n..].to_vec();
        times.sort_unstable();
        times[(times.len() * 99).div_ceil(100) - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_of_a_hundred_may_be_slow() {
        let ms = Duration::from_millis;
        let begun = Instant::now();
        let paced = paced(300, ms(5), |i| async move {
            sleep(ms(if i < 100 || i % 100 == 0 { 700 } else { 20 })).await;
            if i == 7 { Err("seven") } else { Ok(()) }
        });
        let paced = paced.await;
        assert!(begun.elapsed() >= ms(1_500));
        assert_eq!(paced.errors, ["seven"]);
        assert_eq!((paced.p99_after(100), paced.slowest()), (ms(20), ms(700)));
    }
}
