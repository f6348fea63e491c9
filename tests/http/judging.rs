//! Balancers and ejections that judge servers, beside tower's balancer.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, ServiceExt};
use tower_sd_balance::{
    BalanceLayer, Balancer, EjectionPolicy, EndpointState, Endpointer, EndpointerConfig,
    FixedInstancer, Instance, LeastLoaded, Limits, LimitsReport, RetryLayer, RetryPolicy,
    RoundRobin, WeightedRandom, ZoneAware,
};
use tower_sd_http::{HttpEndpoint, HttpFactory, HttpProtocol};

use crate::{
    Sent,
    fleet::{Caller, Fleet, Load, Manner, caller, load, tower_peak_ewma},
    get,
};

/// Ours, which sends each request so many times at most.
pub(crate) fn ours(
    endpointer: &Endpointer<HttpEndpoint<Sent>>,
    balancer: impl Balancer,
    max_attempts: u32,
) -> Caller {
    // A busy machine connects late.
    let balance = BalanceLayer::new(balancer).ready_timeout(BOUND).with_seed(SEED);
    let policy =
        RetryPolicy::new().max_attempts(max_attempts).with_seed(SEED).protocol(HttpProtocol::new());
    caller(RetryLayer::new(policy).layer(balance.layer(endpointer.clone())))
}

pub(crate) fn endpointer(
    instances: impl IntoIterator<Item = Instance>,
) -> Endpointer<HttpEndpoint<Sent>> {
    Endpointer::new(&FixedInstancer::new(instances), HttpFactory::new())
}

#[tokio::test]
async fn instance_that_fails_fast_gets_little() {
    let fleet = Fleet::start(10, Manner::Answers(Duration::from_millis(2))).await;
    fleet.set(3, Manner::Fails);
    let endpointers = [endpointer(fleet.instances()), endpointer(fleet.instances())];
    // Five failures eject it, and one decides about each return; eight are in flight.
    for ours in
        [ours(&endpointers[0], LeastLoaded::new(), 1), ours(&endpointers[1], RoundRobin::new(), 1)]
    {
        let ours = load(&ours, 1_000).await;
        assert!(ours.n_failed <= 20, "{ours:?}");
    }
    // It counts a failure as a low latency.
    let tower = load(&tower_peak_ewma(fleet.instances()).await, 1_000).await;
    assert!(tower.n_failed >= 50, "{tower:?}");
}

#[tokio::test]
async fn instance_of_ten_times_the_latency_gets_two_percent() {
    let fleet = Fleet::start(10, Manner::Answers(Duration::from_millis(10))).await;
    fleet.set(3, Manner::Answers(Duration::from_millis(100)));
    let client = ours(&endpointer(fleet.instances()), LeastLoaded::new(), 1);
    let load = load(&client, 1_000).await;
    assert!(load.n_failed == 0 && load.of(3) <= 20, "{load:?}");
}

/// First the half that is not ejected serves, and when it is down, the other one.
#[tokio::test]
async fn half_of_a_failing_fleet_is_ejected_and_serves_in_a_panic() {
    let fleet = Fleet::start(6, Manner::Fails).await;
    // None ends during the test.
    let policy = EjectionPolicy::new().times(Duration::from_secs(60), Duration::from_secs(60));
    let config = EndpointerConfig::new().ejection(policy);
    let instancer = FixedInstancer::new(fleet.instances());
    let endpointer = Endpointer::with_config(&instancer, HttpFactory::new(), config);
    let client = ours(&endpointer, LeastLoaded::new(), 2);
    assert_eq!(load(&client, 200).await.n_failed, 200);
    let are = |state| -> Vec<usize> {
        let endpoints = endpointer.report().endpoints;
        let in_state = |number: &usize| {
            let instance = fleet.instances().nth(*number);
            endpoints.iter().any(|it| Some(&it.instance) == instance.as_ref() && it.state == state)
        };
        (0..6).filter(in_state).collect()
    };
    let (ejected, rest) = (are(EndpointState::Ejected), are(EndpointState::Ready));
    assert_eq!((ejected.len(), rest.len()), (3, 3), "{:?}", endpointer.report());
    let serves = |load: &Load, all: &[usize]| load.answers.keys().eq(all);

    (0..6).for_each(|number| fleet.set(number, Manner::Answers(Duration::ZERO)));
    let served = load(&client, 200).await;
    assert!(served.n_failed == 0 && serves(&served, &rest), "{rest:?}: {served:?}");
    assert!(!endpointer.report().panic);

    rest.iter().for_each(|number| fleet.set(*number, Manner::Dead));
    let served = load(&client, 200).await;
    assert!(served.n_failed == 0 && serves(&served, &ejected), "{ejected:?}: {served:?}");
    assert!(endpointer.report().panic);
    assert_eq!(are(EndpointState::Down), rest);
}

/// 1 : 3, within so many percentage points.
#[tokio::test]
async fn weights_hold_over_sockets() {
    // Without a time of their own, latencies are what a busy machine makes of them.
    let fleet = Fleet::start(2, Manner::Answers(Duration::from_millis(2))).await;
    for (client, points) in [
        (weighted(&fleet, RoundRobin::new()), 2),
        (weighted(&fleet, WeightedRandom::new()), 2),
        (weighted(&fleet, LeastLoaded::new()), 10),
    ] {
        let load = load(&client, 4_000).await;
        assert_eq!(load.n_failed, 0, "{load:?}");
        assert!(load.of(1).abs_diff(3_000) <= points * 40, "{load:?}");
    }
}

/// The second of two has three times the weight of the first.
fn weighted(fleet: &Fleet, balancer: impl Balancer) -> Caller {
    let weighted =
        fleet.instances().zip([1, 3]).map(|(instance, weight)| instance.with_weight(weight));
    ours(&endpointer(weighted), balancer, 1)
}

/// Idempotent requests, of which each may be sent twice.
#[tokio::test]
async fn zone_that_dies_under_load_fails_no_request() {
    let fleet = Fleet::start(8, Manner::Answers(Duration::from_millis(5))).await;
    let zoned = fleet
        .instances()
        .enumerate()
        .map(|(number, instance)| instance.with_zone(if number < 4 { "own" } else { "other" }));
    let client = ours(&endpointer(zoned), ZoneAware::new("own", LeastLoaded::new()), 2);
    // The own zone has four members: with two of them dead it takes 70 % of the load.
    for (dead, expected) in [(0..0, 0..=0), (0..2, 60..=120), (2..4, 300..=300)] {
        let kill = async {
            sleep(Duration::from_millis(50)).await;
            dead.for_each(|number| fleet.set(number, Manner::Dead));
        };
        let (during, ()) = tokio::join!(load(&client, 300), kill);
        assert_eq!(during.n_failed, 0, "{during:?}");
        let after = load(&client, 300).await;
        assert_eq!(after.n_failed, 0, "{after:?}");
        let crossed: usize = after.answers.range(4..).map(|(_, n)| n).sum();
        assert!(expected.contains(&crossed), "{after:?}");
    }
}

/// Of a hundred requests at a time, the callers of three in four leave within 20 ms.
#[tokio::test]
async fn counters_are_zero_after_random_cancellation() {
    let fleet = Fleet::start(5, Manner::Answers(Duration::from_millis(5))).await;
    fleet.set(1, Manner::Fails);
    fleet.set(2, Manner::Dies);
    let limits = Limits::new().max_requests_per_endpoint(15).max_requests(90).max_retries(9);
    let config = EndpointerConfig::new().limits(limits);
    let instancer = FixedInstancer::new(fleet.instances());
    let endpointer = Endpointer::with_config(&instancer, HttpFactory::new(), config);
    let client = ours(&endpointer, LeastLoaded::new(), 3);
    let (mut rng, mut n_answered, mut n_left) = (StdRng::seed_from_u64(SEED), 0, 0);
    for _ in 0..30 {
        let requests = (0..100).map(|number| {
            let bound = Duration::from_micros(rng.random_range(0..20_000));
            let bound = if number % 4 == 0 { BOUND } else { bound };
            timeout(bound, client.clone().oneshot(get()))
        });
        for outcome in futures_util::future::join_all(requests).await {
            n_answered += usize::from(matches!(outcome, Ok(Ok(_))));
            n_left += usize::from(outcome.is_err());
        }
    }
    assert!(n_answered > 0 && n_left > 0, "{n_answered} {n_left}");
    let begun = Instant::now();
    loop {
        let report = endpointer.report();
        let in_flight: usize = report.endpoints.iter().map(|endpoint| endpoint.in_flight).sum();
        let LimitsReport { requests, pending, retries, .. } = report.limits;
        if (in_flight, requests, pending, retries) == (0, 0, 0, 0) {
            break;
        }
        assert!(begun.elapsed() < BOUND, "{report:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

const SEED: u64 = 7;
const BOUND: Duration = Duration::from_secs(20);
