//! A request without an answer goes to a second instance too.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use fastrand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_sd_balance::{
    Attempt, Balance, BalanceLayer, BoxError, EndpointReport, Endpointer, Event, FixedInstancer,
    HedgeLayer, HedgePolicy, Instance, InstanceId, Observer, RetryBudget, RetryError, RetryLayer,
    RetryPolicy, RoundRobin,
};

use crate::support::{self, Mode, Registry, World, call, settle};

const MS: Duration = Duration::from_millis(1);

/// What an instance does, and how long that takes.
type Script = HashMap<&'static str, (Duration, Result<(), &'static str>)>;

type Scripted = BoxCloneSyncService<u32, String, BoxError>;

/// Endpoints that follow a script; the first request goes to the first one.
async fn scripted<const N: usize>(
    script: [(&'static str, u32, Result<(), &'static str>); N],
) -> (Endpointer<Scripted>, Balance<Scripted>) {
    let instancer = FixedInstancer::new(script.iter().map(|(host, ..)| Instance::new(*host, 1)));
    let script: Script =
        script.into_iter().map(|(host, ms, result)| (host, (ms * MS, result))).collect();
    let script = Arc::new(script);
    let endpointer = Endpointer::with(&instancer, move |instance| {
        let script = Arc::clone(&script);
        let service = service_fn(move |_: u32| {
            let (time, result) = script[instance.host()];
            let host = instance.host().to_owned();
            async move {
                sleep(time).await;
                result.map(|()| host).map_err(BoxError::from)
            }
        });
        async move { Ok(Scripted::new(service)) }
    });
    settle().await;
    let balance =
        BalanceLayer::new(RoundRobin::new().with_start(0)).with_seed(1).layer(endpointer.clone());
    (endpointer, balance)
}

fn hedge() -> HedgePolicy {
    HedgePolicy::after(50 * MS).idempotent()
}

fn of(endpoints: &[EndpointReport], host: &str) -> EndpointReport {
    endpoints.iter().find(|it| it.instance.host() == host).expect("listed").clone()
}

fn n_picks(endpointer: &Endpointer<Scripted>) -> u64 {
    endpointer.report().endpoints.iter().map(|endpoint| endpoint.picks).sum()
}

#[tokio::test(start_paused = true)]
async fn answer_of_the_second_instance_cancels_the_first() {
    let (endpointer, balance) = scripted([("a", 10_000, Ok(())), ("b", 10, Ok(()))]).await;
    let (client, begun) = (HedgeLayer::new(hedge()).layer(balance), Instant::now());
    assert_eq!(client.oneshot(0).await.unwrap(), "b");
    assert_eq!(begun.elapsed(), 60 * MS);
    let endpoints = endpointer.report().endpoints;
    let (a, b) = (of(&endpoints, "a"), of(&endpoints, "b"));
    assert_eq!((a.outcomes.cancelled, a.failures, a.in_flight), (1, 0, 0));
    assert_eq!((b.outcomes.success, b.in_flight), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn answer_of_the_first_instance_cancels_the_second() {
    let (endpointer, balance) = scripted([("a", 70, Ok(())), ("b", 10_000, Ok(()))]).await;
    let client = HedgeLayer::new(hedge()).layer(balance);
    assert_eq!(client.oneshot(0).await.unwrap(), "a");
    let endpoints = endpointer.report().endpoints;
    assert_eq!(of(&endpoints, "a").outcomes.success, 1);
    assert_eq!(of(&endpoints, "b").outcomes.cancelled, 1);
}

/// The first good answer counts, and not the first answer.
#[tokio::test(start_paused = true)]
async fn failure_leaves_the_other_attempt_in_flight() {
    let (_, balance) = scripted([("a", 60, Err("broken")), ("b", 100, Ok(()))]).await;
    assert_eq!(HedgeLayer::new(hedge()).layer(balance).oneshot(0).await.unwrap(), "b");
    let (_, balance) = scripted([("a", 150, Ok(())), ("b", 10, Err("broken"))]).await;
    assert_eq!(HedgeLayer::new(hedge()).layer(balance).oneshot(0).await.unwrap(), "a");
    // Before the hedge there is nothing to wait for.
    let (_, balance) = scripted([("a", 40, Err("broken")), ("b", 10, Ok(()))]).await;
    let error = HedgeLayer::new(hedge()).layer(balance).oneshot(0).await.unwrap_err();
    assert_eq!(error.to_string(), "broken");
}

#[tokio::test(start_paused = true)]
async fn error_names_the_instance_whose_failure_came_last() {
    for (ms_a, ms_b, last) in [(200, 10, "a:1"), (60, 100, "b:1")] {
        let (_, balance) = scripted([("a", ms_a, Err("x")), ("b", ms_b, Err("y"))]).await;
        let (retry, layer) = RetryPolicy::new().max_attempts(1).hedged(hedge());
        let error = retry.layer(layer.layer(balance)).oneshot(0).await.unwrap_err();
        let error: &RetryError = error.downcast_ref().unwrap();
        let named = error.attempts().first().and_then(Attempt::instance).map(InstanceId::as_str);
        assert_eq!(named, Some(last), "{error}");
    }
}

/// A hedge has less time than the first attempt: its instance is not to blame.
#[tokio::test(start_paused = true)]
async fn time_out_counts_against_the_first_instance_alone() {
    let (endpointer, balance) = scripted([("a", 10_000, Ok(())), ("b", 10_000, Ok(()))]).await;
    let policy = RetryPolicy::new().max_attempts(1).per_try_timeout(60 * MS);
    let (retry, layer) = policy.hedged(hedge());
    let (client, begun) = (retry.layer(layer.layer(balance)), Instant::now());
    client.oneshot(0).await.unwrap_err();
    assert_eq!(begun.elapsed(), 60 * MS);
    let endpoints = endpointer.report().endpoints;
    assert_eq!(of(&endpoints, "a").outcomes.timed_out, 1);
    assert_eq!(of(&endpoints, "b").outcomes.cancelled, 1);
}

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<(String, Duration)>>);

impl Observer for Seen {
    fn on(&self, event: &Event<'_>) {
        if let Event::Hedged { instance, delay, .. } = event {
            self.0.lock().unwrap().push((instance.to_string(), *delay));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hedge_takes_a_declaration_another_instance_and_a_budget() {
    let script = || scripted([("a", 100, Ok(())), ("b", 100, Ok(()))]);
    let seen = Arc::<Seen>::default();
    let (endpointer, balance) = script().await;
    let observed = hedge().observer(Arc::<Seen>::clone(&seen));
    HedgeLayer::new(observed).layer(balance).oneshot(0).await.unwrap();
    assert_eq!(n_picks(&endpointer), 2);
    assert_eq!(*seen.0.lock().unwrap(), [("a:1".to_owned(), 50 * MS)]);
    // Nothing declares that it may be repeated.
    let (endpointer, balance) = script().await;
    HedgeLayer::new(HedgePolicy::after(50 * MS)).layer(balance).oneshot(0).await.unwrap();
    assert_eq!(n_picks(&endpointer), 1);
    // There is one instance only, and what was withdrawn is back.
    let (endpointer, balance) = scripted([("a", 100, Ok(()))]).await;
    let budget = RetryBudget::with(100, 1).unwrap();
    HedgeLayer::new(hedge().budget(budget.clone())).layer(balance).oneshot(0).await.unwrap();
    assert_eq!((n_picks(&endpointer), budget.report(Instant::now()).retries), (1, 0));
    // The budget is exhausted.
    let (endpointer, balance) = script().await;
    let budget = RetryBudget::with(1, 0).unwrap();
    HedgeLayer::new(hedge().budget(budget.clone())).layer(balance).oneshot(0).await.unwrap();
    assert_eq!((n_picks(&endpointer), budget.report(Instant::now()).refused), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn percentile_takes_a_hundred_latencies() {
    let (endpointer, balance) = scripted([("a", 20, Ok(())), ("b", 20, Ok(()))]).await;
    let client = HedgeLayer::new(HedgePolicy::percentile(50).idempotent()).layer(balance);
    for _ in 0..100 {
        client.clone().oneshot(0).await.unwrap();
    }
    assert_eq!(n_picks(&endpointer), 100);
}

/// Every number of polls, with both attempts hanging.
#[tokio::test(start_paused = true)]
async fn hedged_call_can_be_dropped_at_any_time() {
    for k in 0..40 {
        let (registry, world) = (Registry::new(&["a", "b"]), World::default());
        world.answer("a", Mode::Hangs);
        world.answer("b", Mode::Hangs);
        let endpointer = support::endpointer(&registry, &world).await;
        let budget = RetryBudget::with(100, 100).unwrap();
        let policy = RetryPolicy::new().idempotent().per_try_timeout(150 * MS).with_seed(1);
        let (retry, layer) = policy.budget(budget.clone()).hedged(hedge());
        let client = retry.layer(layer.layer(support::balance(&endpointer)));
        let mut request = Box::pin(call(&client));
        for _ in 0..k {
            if futures_util::FutureExt::now_or_never(request.as_mut()).is_some() {
                break;
            }
            tokio::time::advance(20 * MS).await;
        }
        drop(request);
        assert_eq!(support::n_in_flight(&endpointer), 0, "after {k} polls");
        let sent = world.n_calls("a") + world.n_calls("b");
        let paid = usize::try_from(budget.report(Instant::now()).retries).unwrap();
        assert_eq!(paid, sent.saturating_sub(1), "after {k} polls");
        drop(client);
        endpointer.close().await;
        drop(endpointer);
        settle().await;
        assert_eq!(world.n_live_in_all(), 0, "after {k} polls");
    }
}

/// Four instances: 5 to 15 ms, and 2 % of the requests take 1 s.
struct Stalling {
    rng: Mutex<Rng>,
    n_calls: AtomicUsize,
    is_slow: AtomicBool,
}

impl Stalling {
    fn latency(&self) -> Duration {
        self.n_calls.fetch_add(1, Relaxed);
        let mut rng = self.rng.lock().unwrap();
        let ordinary = Duration::from_micros(rng.u64(5_000..15_000));
        match rng.f64() < 0.02 {
            true => 1_000 * MS,
            false if self.is_slow.load(Relaxed) => ordinary * 20,
            false => ordinary,
        }
    }
}

/// The p99 and the attempts per request after the first 10 s, at 500 requests/s.
async fn tail(hedge: Option<HedgePolicy>, gets_slow: bool) -> (Duration, f64) {
    let world = Arc::new(Stalling {
        rng: Mutex::new(Rng::with_seed(7)),
        n_calls: AtomicUsize::new(0),
        is_slow: AtomicBool::new(false),
    });
    let serving = Arc::clone(&world);
    let instancer = FixedInstancer::new(["a", "b", "c", "d"].map(|host| Instance::new(host, 1)));
    let endpointer = Endpointer::with(&instancer, move |_| {
        let world = Arc::clone(&serving);
        let service = service_fn(move |()| {
            let latency = world.latency();
            async move {
                sleep(latency).await;
                Ok::<_, BoxError>(())
            }
        });
        async move { Ok(service) }
    });
    settle().await;
    let balance = BalanceLayer::default().with_seed(3).layer(endpointer);
    let policy = RetryPolicy::new().idempotent().with_seed(3);
    let client: BoxCloneSyncService<(), (), BoxError> = match hedge {
        None => BoxCloneSyncService::new(RetryLayer::new(policy).layer(balance)),
        Some(hedge) => {
            let (retry, hedge) = policy.hedged(hedge);
            BoxCloneSyncService::new(retry.layer(hedge.layer(balance)))
        }
    };
    let (mut requests, begin) = (JoinSet::new(), Instant::now());
    let (mut n_requests, mut n_before) = (0.0, 0);
    for n in 0..10_000_u32 {
        sleep_until(begin + n * 2 * MS).await;
        if n == 5_000 {
            n_before = world.n_calls.load(Relaxed);
            world.is_slow.store(gets_slow, Relaxed);
        }
        n_requests += if n >= 5_000 { 1.0 } else { 0.0 };
        let client = client.clone();
        requests.spawn(async move {
            let begun = Instant::now();
            client.oneshot(()).await.unwrap();
            (n >= 5_000).then(|| begun.elapsed())
        });
    }
    let mut latencies: Vec<_> = requests.join_all().await.into_iter().flatten().collect();
    latencies.sort_unstable();
    let n_attempts = u32::try_from(world.n_calls.load(Relaxed) - n_before).unwrap();
    (latencies[latencies.len() * 99 / 100], f64::from(n_attempts) / n_requests)
}

#[tokio::test(start_paused = true)]
async fn tail_of_stalled_requests_is_cut_for_little_load() {
    let (without, once) = tail(None, false).await;
    assert!(without >= 1_000 * MS && once < 1.001, "{without:?} {once}");
    let (with, load) = tail(Some(HedgePolicy::percentile(95)), false).await;
    assert!(with * 5 <= without, "p99 {with:?} of {without:?}");
    assert!((1.02..=1.06).contains(&load), "{load}");
}

#[tokio::test(start_paused = true)]
async fn slowness_of_all_instances_costs_little_load() {
    let (_, load) = tail(Some(HedgePolicy::percentile(95)), true).await;
    assert!((1.0..=1.06).contains(&load), "{load}");
}
