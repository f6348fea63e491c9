//! Retries are paid by successes: an outage costs no storm, and an overload passes.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use fastrand::Rng;
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_sd_balance::{
    Attempt, BalanceLayer, BoxError, Endpointer, Event, FailureClass, FixedInstancer, Instance,
    NotSent, Observer, Outcome, Protocol, Retry, RetryBudget, RetryError, RetryLayer, RetryPolicy,
};

use crate::support::settle;

const SECOND: Duration = Duration::from_secs(1);

fn policy() -> RetryPolicy {
    RetryPolicy::new().idempotent().backoff(Duration::ZERO, Duration::ZERO).with_seed(1)
}

/// Sends one request per millisecond, and counts the attempts of those that begin after `warm_up`.
async fn attempts_per_request(
    policy: RetryPolicy,
    warm_up: Duration,
    answer: impl Fn(u32) -> bool + Clone + Send + Sync + 'static,
) -> f64 {
    let n_attempts = Arc::<AtomicU32>::default();
    let counter = Arc::clone(&n_attempts);
    let service = service_fn(move |warm: bool| {
        let n = if warm { counter.fetch_add(1, Relaxed) } else { 0 };
        let works = answer(n);
        async move { if works { Ok(()) } else { Err(BoxError::from("overloaded")) } }
    });
    let client = RetryLayer::new(policy).layer(service);
    let (mut requests, begin) = (JoinSet::new(), Instant::now());
    let total = warm_up + 10 * SECOND;
    let mut n_requests = 0.0;
    for ms in 0.. {
        let offset = Duration::from_millis(ms);
        if offset >= total {
            break;
        }
        sleep_until(begin + offset).await;
        let warm = offset >= warm_up;
        n_requests += if warm { 1.0 } else { 0.0 };
        requests.spawn(client.clone().oneshot(warm));
    }
    requests.join_all().await;
    f64::from(n_attempts.load(Relaxed)) / n_requests
}

#[tokio::test(start_paused = true)]
async fn total_outage_adds_one_percent_of_load() {
    let factor = attempts_per_request(policy(), 10 * SECOND, |_| false).await;
    assert!((1.0..=1.03).contains(&factor), "{factor}");
    let storm = attempts_per_request(policy().without_budget(), Duration::ZERO, |_| false).await;
    assert!((2.9..=3.0).contains(&storm), "{storm}");
}

/// Each second attempt fails, so that more is wanted than there is.
#[tokio::test(start_paused = true)]
async fn half_of_errors_spends_what_successes_pay() {
    for percent in [1, 20, 33] {
        let budget = RetryBudget::with(percent, 0).unwrap();
        let policy = policy().max_attempts(2).budget(budget.clone());
        attempts_per_request(policy, Duration::ZERO, |n| n % 2 == 0).await;
        let report = budget.report(Instant::now());
        let (paid, spent) = (report.successes * u64::from(percent), report.retries * 100);
        assert!(report.successes > 4_000 && report.refused > 0, "{report:?}");
        assert!(spent <= paid && spent * 100 >= paid * 99, "{percent} %: {report:?}");
    }
}

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<(u32, String)>>);

impl Observer for Seen {
    fn on(&self, event: &Event<'_>) {
        if let Event::BudgetExhausted { attempt, error, .. } = event {
            self.0.lock().unwrap().push((*attempt, error.to_string()));
        }
    }
}

fn failing()
-> Retry<impl tower::Service<u32, Response = u32, Error = BoxError, Future: Send> + Clone> {
    failing_with(RetryPolicy::new().budget(RetryBudget::with(100, 0).unwrap()))
}

fn failing_with(
    policy: RetryPolicy,
) -> Retry<impl tower::Service<u32, Response = u32, Error = BoxError, Future: Send> + Clone> {
    let policy = policy.idempotent().backoff(Duration::ZERO, Duration::ZERO);
    RetryLayer::new(policy).layer(service_fn(|n: u32| async move {
        match n {
            0 => Ok(0),
            1 => Err(NotSent::new("refused").into()),
            _ => Err(BoxError::from("failed")),
        }
    }))
}

fn tried(error: &BoxError) -> (&[Attempt], bool) {
    let error: &RetryError = error.downcast_ref().unwrap();
    (error.attempts(), error.is_budget_exhausted())
}

#[tokio::test(start_paused = true)]
async fn exhausted_budget_returns_the_first_error_and_its_mark() {
    let seen = Arc::<Seen>::default();
    let budget = RetryBudget::with(100, 0).unwrap();
    let client = failing_with(
        RetryPolicy::new()
            .max_attempts(2)
            .budget(budget.clone())
            .observer(Arc::<Seen>::clone(&seen)),
    );
    let error = client.clone().oneshot(2).await.unwrap_err();
    assert_eq!((tried(&error).0.len(), tried(&error).1), (1, true));
    assert!(
        error.to_string().starts_with("request failed: retry budget exhausted after attempt 1")
    );
    assert_eq!(error.source().unwrap().to_string(), "failed");
    assert_eq!(*seen.0.lock().unwrap(), [(1, "failed".into())]);
    // A success pays for one.
    client.clone().oneshot(0).await.unwrap();
    let error = client.clone().oneshot(2).await.unwrap_err();
    assert_eq!((tried(&error).0.len(), tried(&error).1), (2, false));
    assert_eq!(budget.report(Instant::now()).refused, 1);
}

#[tokio::test(start_paused = true)]
async fn unsent_requests_are_repeated_without_a_budget() {
    let error = failing().oneshot(1).await.unwrap_err();
    assert_eq!((tried(&error).0.len(), tried(&error).1), (3, false));
}

/// Refusing costs an instance work: an overloaded one would get all attempts.
#[tokio::test(start_paused = true)]
async fn refusal_of_an_instance_is_free_once() {
    let instancer = FixedInstancer::new(["a", "b", "c"].map(|host| Instance::new(host, 1)));
    let endpointer = Endpointer::with(&instancer, |_| async {
        Ok(service_fn(|()| async { Err::<(), BoxError>(NotSent::new("refused").into()) }))
    });
    settle().await;
    let policy = policy().budget(RetryBudget::with(1, 0).unwrap());
    let client = RetryLayer::new(policy).layer(BalanceLayer::default().layer(endpointer));
    let error = client.oneshot(()).await.unwrap_err();
    assert_eq!((tried(&error).0.len(), tried(&error).1), (2, true));
}

#[tokio::test(start_paused = true)]
async fn success_that_took_long_pays_too() {
    let budget = RetryBudget::new();
    let slow = service_fn(|()| async {
        sleep(20 * SECOND).await;
        Ok::<_, BoxError>(())
    });
    let client = RetryLayer::new(RetryPolicy::new().budget(budget.clone())).layer(slow);
    client.oneshot(()).await.unwrap();
    assert_eq!(budget.report(Instant::now()).successes, 1);
}

#[tokio::test(start_paused = true)]
async fn clients_share_a_budget_that_both_are_given() {
    let budget = RetryBudget::with(100, 0).unwrap();
    let policy = RetryPolicy::new().max_attempts(2).budget(budget);
    let (one, two) = (failing_with(policy.clone()), failing_with(policy));
    one.clone().oneshot(0).await.unwrap();
    assert_eq!(tried(&two.oneshot(2).await.unwrap_err()).0.len(), 2);
    assert_eq!(tried(&one.oneshot(2).await.unwrap_err()).0.len(), 1);
    // Without one, each layer has its own: 100 within 10 s.
    let policy = RetryPolicy::new().max_attempts(2);
    let (one, two) = (failing_with(policy.clone()), failing_with(policy));
    for n in 0..120 {
        let error = one.clone().oneshot(2).await.unwrap_err();
        assert_eq!(tried(&error).1, n >= 100, "request {n}");
    }
    assert!(!tried(&two.oneshot(2).await.unwrap_err()).1);
}

/// Responses above 9 are failures that the caller gets.
struct Codes;

impl Protocol<u32, u32> for Codes {
    fn copy(&self, request: &u32) -> Option<u32> {
        Some(*request)
    }

    fn outcome(&self, result: Result<&u32, &BoxError>) -> Outcome {
        match result {
            Ok(code) if *code > 9 => Outcome::Failed(FailureClass::Response),
            result => result.map_or_else(Outcome::of_error, |_| Outcome::Success),
        }
    }

    fn verdict(&self, _: Result<&u32, &BoxError>) -> tower_sd_balance::Verdict {
        tower_sd_balance::Verdict::Final
    }

    fn is_rejection(&self, response: &u32) -> bool {
        *response == 9
    }
}

#[tokio::test(start_paused = true)]
async fn response_of_failure_or_overload_pays_for_nothing() {
    let budget = RetryBudget::new();
    let policy = RetryPolicy::new().budget(budget.clone()).protocol(Codes);
    let client = RetryLayer::new(policy).layer(service_fn(async |n: u32| Ok::<_, BoxError>(n)));
    for n in [1, 10, 2, 11, 9, 12, 9] {
        client.clone().oneshot(n).await.unwrap();
    }
    assert_eq!(budget.report(Instant::now()).successes, 2);
}

#[test]
#[should_panic(expected = "per-try timeout of 3s is above timeout of 2s")]
fn contradicting_timeouts_are_refused_when_the_layer_is_built() {
    let policy = RetryPolicy::new().timeout(2 * SECOND).per_try_timeout(3 * SECOND);
    drop(RetryLayer::new(policy));
}

/// A server with a queue, which works on requests that their clients have given up.
#[derive(Clone)]
struct Server {
    workers: Arc<Semaphore>,
    /// How long one request takes, in µs.
    service: Arc<AtomicU64>,
    drops_expired: bool,
}

impl Server {
    const PATIENCE: Duration = Duration::from_millis(800);

    /// Answers 62.5 requests per second.
    fn start(drops_expired: bool) -> Self {
        let (workers, service) = (Arc::new(Semaphore::new(5)), Arc::new(AtomicU64::new(80_000)));
        Self { workers, service, drops_expired }
    }

    fn serve(&self) -> impl Future<Output = Result<(), BoxError>> + Send + use<> {
        let (server, (done, answer)) = (self.clone(), oneshot::channel());
        let arrived = Instant::now();
        tokio::spawn(async move {
            let _worker = server.workers.acquire().await.unwrap();
            if server.drops_expired && arrived.elapsed() >= Self::PATIENCE {
                return;
            }
            sleep(Duration::from_micros(server.service.load(Relaxed))).await;
            let _given_up = done.send(());
        });
        async move { answer.await.map_err(|_dropped| "expired".into()) }
    }
}

/// The share of requests that succeed, per second since the end of a dip to 70 % of the capacity.
async fn dip(policy: RetryPolicy, server: Server, seed: u64, seconds: u64) -> BTreeMap<u64, f64> {
    let policy = policy.idempotent().per_try_timeout(Server::PATIENCE).with_seed(seed);
    let serving = server.clone();
    let client = RetryLayer::new(policy).layer(service_fn(move |(): ()| serving.serve()));
    let (mut rng, mut requests) = (Rng::with_seed(seed), JoinSet::new());
    let begin = Instant::now();
    let (dip, end) = (begin + 10 * SECOND, begin + 20 * SECOND);
    let mut next = begin;
    loop {
        // 50 per second, as a Poisson process.
        next += Duration::from_secs_f64(-(1.0 - rng.f64()).ln() / 50.0);
        if next >= end + Duration::from_secs(seconds) {
            break;
        }
        sleep_until(next).await;
        let service = if (dip..end).contains(&next) { 114_285 } else { 80_000 };
        server.service.store(service, Relaxed);
        let client = client.clone();
        requests.spawn(async move {
            let begun = Instant::now();
            (begun, client.oneshot(()).await.is_ok())
        });
    }
    let mut seen = BTreeMap::<u64, (f64, f64)>::new();
    for (begun, is_ok) in requests.join_all().await {
        if let Some(since) = begun.checked_duration_since(end) {
            let (n, ok) = seen.entry(since.as_secs()).or_default();
            (*n, *ok) = (*n + 1.0, *ok + f64::from(u8::from(is_ok)));
        }
    }
    settle().await;
    seen.into_iter().map(|(second, (n, ok))| (second, ok / n)).collect()
}

/// The first second from which on 99 % succeed.
fn recovered(shares: &BTreeMap<u64, f64>) -> u64 {
    let last_bad = shares.iter().rev().find(|(_, share)| **share < 0.99);
    last_bad.map_or(0, |(second, _)| second + 1)
}

/// The overload outlasts its cause: the retries keep it up (a metastable failure).
#[tokio::test(start_paused = true)]
async fn dip_of_capacity_passes_with_a_budget_and_never_without() {
    let (mut keeping, mut dropping) = (Vec::new(), Vec::new());
    for seed in 1..=5 {
        let storm = dip(RetryPolicy::new().without_budget(), Server::start(false), seed, 25).await;
        assert!(storm.range(20..).all(|(_, share)| *share < 0.1), "{storm:?}");
        // Of the floor, in proportion to the load.
        let budget = || RetryPolicy::new().budget(RetryBudget::with(20, 1).unwrap());
        keeping.push(recovered(&dip(budget(), Server::start(false), seed, 25).await));
        dropping.push(recovered(&dip(budget(), Server::start(true), seed, 5).await));
    }
    keeping.sort_unstable();
    dropping.sort_unstable();
    assert!(keeping[2] <= 20 && dropping[2] <= 2, "{keeping:?} {dropping:?}");
}
