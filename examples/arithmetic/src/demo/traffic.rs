//! Steady requests, each answer checked.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tower_sd::BoxError;

use crate::{client::Client, service::Operation};

/// Callers that send a request, wait a little, and repeat until they are stopped.
#[derive(Debug)]
pub(crate) struct Traffic {
    counts: Arc<Counts>,
    callers: JoinSet<()>,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    requests: AtomicU64,
    failures: AtomicU64,
    first_failure: Mutex<Option<String>>,
}

impl Traffic {
    pub(crate) fn start(client: &Client) -> Self {
        let (counts, stop) = (Arc::<Counts>::default(), CancellationToken::new());
        let mut callers = JoinSet::new();
        for n in 0..CALLERS {
            callers.spawn(call(client.clone(), n, Arc::clone(&counts), stop.clone()));
        }
        Self { counts, callers, stop }
    }

    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Lets every caller finish its request.
    pub(crate) async fn stop(self) -> Arc<Counts> {
        self.stop.cancel();
        self.callers.join_all().await;
        self.counts
    }
}

impl Counts {
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// What went wrong first.
    pub(crate) fn first_failure(&self) -> Option<String> {
        self.first_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failed(&self, error: &BoxError) {
        self.failures.fetch_add(1, Relaxed);
        let mut first = self.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| error.to_string());
    }
}

async fn call(client: Client, first: usize, counts: Arc<Counts>, stop: CancellationToken) {
    for n in (first..).step_by(CALLERS) {
        if stop.is_cancelled() {
            return;
        }
        counts.requests.fetch_add(1, Relaxed);
        if let Err(error) = calculate(&client, n).await {
            counts.failed(&error);
        }
        sleep(PAUSE).await;
    }
}

/// A wrong answer is a failure, too.
async fn calculate(client: &Client, n: usize) -> Result<(), BoxError> {
    let operation = Operation::ALL[n % Operation::ALL.len()];
    let (a, b) = (i64::try_from(n)?, 7);
    let result = client.calculate(&operation.to_string(), &a.to_string(), &b.to_string()).await?;
    let expected = operation.apply(a, b)?;
    if result != expected {
        return Err(format!("{operation} {a} {b} is {expected}, and {result} came").into());
    }
    Ok(())
}

const CALLERS: usize = 12;

/// With the servers' work of 20 ms, about 300 requests a second.
const PAUSE: Duration = Duration::from_millis(20);
