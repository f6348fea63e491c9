use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tower_sd::BoxError;

/// Requests that are offered at a steady rate, whatever becomes of those before.
pub(crate) struct Load {
    counts: Arc<Counts>,
    stop: CancellationToken,
    offering: JoinSet<Duration>,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    offered: AtomicU64,
    in_flight: AtomicUsize,
    slowest_us: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Sum {
    pub(crate) offered: u64,
    pub(crate) failures: Vec<String>,
    pub(crate) rate: f64,
    slowest: Duration,
}

impl Load {
    /// `ask` is given the number of the request.
    pub(crate) fn start<F>(rate: u32, ask: impl Fn(u64) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let (counts, stop) = (Arc::<Counts>::default(), CancellationToken::new());
        let mut offering = JoinSet::new();
        offering.spawn(offer(rate, ask, Arc::clone(&counts), stop.clone()));
        Self { counts, stop, offering }
    }

    pub(crate) fn offered(&self) -> u64 {
        self.counts.offered.load(Relaxed)
    }

    pub(crate) async fn until(&self, offered: u64) {
        while self.offered() < offered {
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Offers no more, and waits for those in flight.
    pub(crate) async fn stop(mut self) -> Sum {
        self.stop.cancel();
        let took = self.offering.join_next().await.expect("it runs").expect("no panic");
        let offered = self.offered();
        let mut failures = self.counts.failures.lock().expect("no panic");
        Sum {
            offered,
            failures: std::mem::take(&mut *failures),
            rate: f64::from(u32::try_from(offered).expect("few")) / took.as_secs_f64(),
            slowest: Duration::from_micros(self.counts.slowest_us.load(Relaxed)),
        }
    }
}

/// Returns how long it offered.
async fn offer<F>(
    rate: u32,
    ask: impl Fn(u64) -> F,
    counts: Arc<Counts>,
    stop: CancellationToken,
) -> Duration
where
    F: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    let begun = Instant::now();
    let mut requests = JoinSet::new();
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for n in 0.. {
        ticks.tick().await;
        if stop.is_cancelled() {
            break;
        }
        counts.offered.fetch_add(1, Relaxed);
        requests.spawn(one(n, ask(n), Arc::clone(&counts)));
        while requests.try_join_next().is_some() {}
    }
    let took = begun.elapsed();
    requests.join_all().await;
    took
}

async fn one(n: u64, request: impl Future<Output = Result<(), BoxError>>, counts: Arc<Counts>) {
    let begun = Instant::now();
    counts.in_flight.fetch_add(1, Relaxed);
    if let Err(error) = request.await {
        let failure = format!("request {n} after {:?}: {error}", begun.elapsed());
        counts.failures.lock().expect("no panic").push(failure);
    }
    counts.in_flight.fetch_sub(1, Relaxed);
    let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    counts.slowest_us.fetch_max(took, Relaxed);
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offered, failures, rate, slowest } = self;
        let failed = failures.len();
        write!(f, "{failed} failed of {offered}, {rate:.0} requests/s, slowest {slowest:?}")
    }
}
