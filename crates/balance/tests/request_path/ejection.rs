//! Endpoints that fail get no requests for a while.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt};
use tower_sd_balance::{
    EjectionPolicy, EndpointState, Endpointer, EndpointerConfig, Instance, RetryLayer, RetryPolicy,
    RoundRobin, factory_fn,
};

use crate::{
    fleet::Fleet,
    support::{
        Client, Mode, Registry, World, balance, call, endpointer, instances, report, settle, start,
    },
};

const SECOND: Duration = Duration::from_secs(1);

fn n_in(endpointer: &Endpointer<Client>, state: EndpointState) -> usize {
    endpointer.report().endpoints.iter().filter(|endpoint| endpoint.state == state).count()
}

#[tokio::test(start_paused = true)]
async fn half_of_a_failing_set_is_ejected_and_serves_in_a_panic() {
    let hosts = ["a", "b", "c", "d", "e", "f"];
    let (registry, world) = (Registry::new(&hosts), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let client = balance(&endpointer);
    hosts.iter().for_each(|host| world.answer(host, Mode::Fails));
    for _ in 0..100 {
        assert!(call(&client).await.is_err());
        tokio::task::yield_now().await;
    }
    settle().await;
    assert_eq!(n_in(&endpointer, EndpointState::Ejected), 3);
    let ejected: Vec<_> =
        endpointer.report().endpoints.into_iter().filter_map(|e| e.ejection).collect();
    assert_eq!(ejected.len(), 3);
    assert_eq!(ejected[0].reason, "ejected: 5 consecutive failures");
    assert!((SECOND * 7 / 10..SECOND * 13 / 10).contains(&ejected[0].left), "{ejected:?}");
    assert!(!endpointer.report().panic);
    for endpoint in endpointer.report().endpoints {
        let host = endpoint.instance.host().to_owned();
        if endpoint.state == EndpointState::Ready {
            world.ready(&host, Mode::Fails);
        }
        world.answer(&host, Mode::Works);
    }
    for _ in 0..10 {
        call(&client).await.expect("an ejected one serves");
    }
    settle().await;
    assert!(endpointer.report().panic);
    assert_eq!(n_in(&endpointer, EndpointState::Down), 3);
    sleep(2 * SECOND).await;
    for _ in 0..10 {
        call(&client).await.expect("an answer");
        settle().await;
    }
    assert_eq!(n_in(&endpointer, EndpointState::Ready), 3, "{:?}", endpointer.report());
    assert!(!endpointer.report().panic);
}

#[tokio::test(start_paused = true)]
async fn one_request_decides_about_the_end_of_an_ejection() {
    let (registry, world) = (Registry::new(&["a", "b", "c"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let client = balance(&endpointer);
    world.answer("b", Mode::Fails);
    for _ in 0..30 {
        let _result = call(&client).await;
        settle().await;
    }
    let n = world.n_calls("b");
    assert_eq!(n, 5);
    let begun = Instant::now();
    world.answer("b", Mode::Hangs);
    sleep(3 * SECOND / 2).await;
    // A request that is given up decides nothing; another one may a second later.
    let probation = start({
        let client = client.clone();
        async move { call(&client).await }
    });
    settle().await;
    assert_eq!(world.n_calls("b"), n + 1, "{:?}", begun.elapsed());
    for _ in 0..10 {
        call(&client).await.expect("the others serve");
    }
    assert_eq!(world.n_calls("b"), n + 1);
    probation.abort();
    sleep(SECOND + SECOND / 100).await;
    world.answer("b", Mode::Fails);
    assert!(call(&client).await.is_err());
    settle().await;
    let ejection = report(&endpointer, "b").unwrap().ejection.unwrap();
    assert_eq!((ejection.times, ejection.reason.as_str()), (2, "ejected: it still fails"));
    assert!(ejection.left > SECOND * 14 / 10, "{ejection:?}");
    sleep(3 * SECOND).await;
    world.answer("b", Mode::Works);
    assert_eq!(call(&client).await.unwrap(), "b");
    settle().await;
    assert_eq!(report(&endpointer, "b").unwrap().state, EndpointState::Ready);
    assert!(report(&endpointer, "b").unwrap().ejection.is_none());
}

#[tokio::test(start_paused = true)]
async fn ejection_survives_changes_of_the_set() {
    let (mut registry, world) = (Registry::new(&["a", "b", "c"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let client = balance(&endpointer);
    world.answer("b", Mode::Fails);
    for _ in 0..30 {
        let _result = call(&client).await;
        settle().await;
    }
    let before = report(&endpointer, "b").unwrap();
    let mut changed = instances(&["a", "b", "c", "d"]);
    changed[1] = changed[1].clone().with_weight(7);
    registry.set_instances(changed).await;
    let after = report(&endpointer, "b").unwrap();
    assert_eq!((after.state, after.picks), (EndpointState::Ejected, before.picks));
    assert!(after.ejection.unwrap().left <= before.ejection.unwrap().left);
    for _ in 0..12 {
        assert_ne!(call(&client).await.unwrap(), "b");
    }
}

#[tokio::test(start_paused = true)]
async fn last_instance_is_never_ejected() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let client = balance(&endpointer);
    world.answer("a", Mode::Fails);
    for _ in 0..50 {
        assert!(call(&client).await.is_err());
        settle().await;
    }
    assert_eq!(n_in(&endpointer, EndpointState::Ready), 1);
}

#[tokio::test(start_paused = true)]
async fn success_rate_ejects_and_off_ejects_nothing() {
    let off = EjectionPolicy::off();
    let rate = EjectionPolicy::new().consecutive_failures(0);
    for (policy, expected) in [(off, 0), (rate, 1)] {
        let (registry, world) = (Registry::new(&["a", "b"]), World::default());
        let config = EndpointerConfig::new().ejection(policy);
        let endpointer = Endpointer::with_config(&registry, factory_fn(world.factory()), config);
        settle().await;
        let client = balance(&endpointer);
        for n in 0..120 {
            // Every third request of b fails.
            world.answer("b", if n % 6 < 2 { Mode::Fails } else { Mode::Works });
            let _result = call(&client).await;
            settle().await;
        }
        assert_eq!(n_in(&endpointer, EndpointState::Ejected), expected, "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn flapping_instance_costs_two_percent_without_retries() {
    let fleet = Fleet::new(4);
    let (_endpointer, client) = fleet.client(RoundRobin::new(), |instance| instance).await;
    let mut n_failed = 0;
    for second in 0..60 {
        fleet.fail(2, second % 2 == 1);
        n_failed += fleet.load(&client, 100, SECOND / 100).await.1;
    }
    assert!(n_failed <= 120, "{n_failed} of 6000");
}

#[tokio::test(start_paused = true)]
async fn one_dead_of_two_fails_no_request_with_one_retry() {
    let fleet = Fleet::new(2);
    fleet.fail(2, true);
    let keep = |instance: Instance| instance;
    let (_endpointer, client) = fleet.client(RoundRobin::new(), keep).await;
    let policy = RetryPolicy::new().max_attempts(2).idempotent();
    let client = RetryLayer::new(policy).layer(client);
    let (_, n_failed) = fleet.load(&client, 3_000, SECOND / 100).await;
    assert_eq!(n_failed, 0);
}

/// Of ten requests three fail; as many again are in flight all the time.
#[tokio::test(start_paused = true)]
async fn requests_in_flight_are_no_successes() {
    let fleet = Fleet::new(2);
    let (endpointer, client) = fleet.client(RoundRobin::new(), |instance| instance).await;
    fleet.fail(2, true);
    fleet.load(&client, 2, SECOND / 50).await;
    fleet.fail(2, false);
    fleet.slow(2, 1_000 * SECOND);
    let slow: Vec<_> = (0..60).map(|_| start(client.clone().oneshot(()))).collect();
    settle().await;
    fleet.slow(2, SECOND / 1_000);
    for n in 0..60 {
        fleet.fail(2, n % 6 < 2);
        fleet.load(&client, 1, SECOND / 50).await;
    }
    settle().await;
    let endpoints = endpointer.report().endpoints;
    let ejection = endpoints[1].ejection.as_ref().expect("67 % of its requests succeed");
    assert!(ejection.reason.contains('%'), "{ejection:?}");
    slow.into_iter().for_each(|request| request.abort());
}

#[tokio::test(start_paused = true)]
async fn no_more_than_half_of_a_shrinking_set_stays_ejected() {
    let hosts = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for (n_left, n_ejected) in [(5, 2), (6, 3)] {
        let (mut registry, world) = (Registry::new(&hosts), World::default());
        let endpointer = endpointer(&registry, &world).await;
        let client = balance(&endpointer);
        hosts[..4].iter().for_each(|host| world.answer(host, Mode::Fails));
        for _ in 0..80 {
            let _result = call(&client).await;
            settle().await;
        }
        assert_eq!(n_in(&endpointer, EndpointState::Ejected), 4);
        registry.set(&hosts[..n_left]).await;
        for _ in 0..40 {
            sleep(SECOND).await;
            let _result = call(&client).await;
            settle().await;
            let n = n_in(&endpointer, EndpointState::Ejected);
            assert!(n <= 4);
        }
        assert_eq!(n_in(&endpointer, EndpointState::Ejected), n_ejected);
    }
}

#[tokio::test(start_paused = true)]
async fn request_prefers_ejected_endpoints_to_down_ones() {
    let (registry, world) = (Registry::new(&["a", "b", "c", "d"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let client = balance(&endpointer);
    ["a", "b"].iter().for_each(|host| world.answer(host, Mode::Fails));
    for _ in 0..40 {
        let _result = call(&client).await;
        settle().await;
    }
    ["c", "d"].iter().for_each(|host| world.ready(host, Mode::Fails));
    for _ in 0..4 {
        let _result = call(&client).await;
        settle().await;
    }
    let n = |state| n_in(&endpointer, state);
    assert_eq!((n(EndpointState::Ejected), n(EndpointState::Down)), (2, 2));
    // Their probes last.
    ["c", "d"].iter().for_each(|host| world.ready(host, Mode::Hangs));
    let policy = RetryPolicy::new().max_attempts(2).idempotent();
    let client = RetryLayer::new(policy.backoff(Duration::ZERO, Duration::ZERO)).layer(client);
    for n in 1..=3 {
        let (begun, before) = (Instant::now(), ["a", "b"].map(|host| world.n_calls(host)));
        call(&client).await.unwrap_err();
        assert!(begun.elapsed() < SECOND / 100, "{n}: {:?}", begun.elapsed());
        assert_eq!(["a", "b"].map(|host| world.n_calls(host)), before.map(|n| n + 1));
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn ejected_ones_that_have_left_count_no_more() {
    let (mut registry, world) = (Registry::new(&["a", "b", "c", "d"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let client = balance(&endpointer);
    for (failing, hosts) in [(["a", "b"], &["c", "d"][..]), (["c", "d"], &["c", "d"])] {
        failing.iter().for_each(|host| world.answer(host, Mode::Fails));
        for _ in 0..40 {
            let _result = call(&client).await;
            settle().await;
        }
        registry.set(hosts).await;
    }
    assert_eq!(n_in(&endpointer, EndpointState::Ejected), 1, "half of the two that are left");
}

/// "Hardly any" is no ejection that is over when it begins.
#[tokio::test(start_paused = true)]
async fn ejection_without_length_grows_as_others_do() {
    let (registry, world) = (Registry::new(&["a", "b", "c"]), World::default());
    let policy = EjectionPolicy::new().times(Duration::ZERO, 30 * SECOND);
    let config = EndpointerConfig::new().ejection(policy);
    let endpointer = Endpointer::with_config(&registry, factory_fn(world.factory()), config);
    settle().await;
    world.answer("b", Mode::Fails);
    let client = balance(&endpointer);
    for _ in 0..100 {
        let _result = call(&client).await;
        sleep(SECOND / 10).await;
    }
    assert!((8..=18).contains(&world.n_calls("b")), "{}", world.n_calls("b"));
}
