//! Membership: endpoints that stay, leave and return; factories; the end.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};
use tower_sd_balance::{
    BalanceLayer, Balancer, Choice, EndpointState, Endpointer, EndpointerConfig, Instance,
    InstanceStatus, Members, NoInstances, NoInstancesReason, Picker, factory_fn,
};

use crate::support::{
    Client, Mode, Registry, World, answers, balance, call, endpointer, instances, n_in_flight,
    report, settle, start,
};

#[tokio::test(start_paused = true)]
async fn survivors_keep_their_service_and_their_statistics() {
    let (mut registry, world) = (Registry::new(&["a", "b"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    answers(&balance(&endpointer), 10).await;
    world.answer("a", Mode::Fails);
    let balance = balance(&endpointer);
    let failed = [call(&balance).await, call(&balance).await].iter().filter(|r| r.is_err()).count();
    assert_eq!(failed, 1);
    registry.set(&["a", "c", "d"]).await;
    let a = report(&endpointer, "a").unwrap();
    assert_eq!((a.picks, a.failures, world.n_made("a")), (6, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn changed_payload_reaches_its_endpoint_and_makes_no_new_one() {
    let (mut registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    registry.set_instances(vec![Instance::new("a", 1).with_metadata("shard", "7")]).await;
    let a = report(&endpointer, "a").unwrap();
    assert_eq!(a.instance.metadata()["shard"], "7");
    assert_eq!(world.n_made("a"), 1);
}

/// Picks by its tables: the instance with the largest weight.
#[derive(Debug)]
struct Heaviest;

struct Fixed(Option<usize>);

impl Balancer for Heaviest {
    fn picker(&self, members: &Members<'_>) -> Arc<dyn Picker> {
        let weights = members.iter().map(|instance| instance.weight()).enumerate();
        Arc::new(Fixed(weights.max_by_key(|(_, weight)| *weight).map(|(index, _)| index)))
    }
}

impl Picker for Fixed {
    fn pick(&self, choice: &mut Choice<'_>) -> Option<usize> {
        self.0.filter(|index| choice.is_usable(*index))
    }
}

#[tokio::test(start_paused = true)]
async fn balancers_tables_follow_the_payload() {
    let (mut registry, world) = (Registry::new(&["a", "b"]), World::default());
    let balance = BalanceLayer::new(Heaviest).layer(endpointer(&registry, &world).await);
    for (heavy, light) in [("a", "b"), ("b", "a"), ("a", "b")] {
        let instances =
            [Instance::new(heavy, 1).with_weight(9), Instance::new(light, 1).with_weight(1)];
        registry.set_instances(instances.to_vec()).await;
        assert_eq!(answers(&balance, 2).await, [heavy, heavy]);
    }
}

#[tokio::test(start_paused = true)]
async fn changed_address_makes_a_new_endpoint() {
    let (mut registry, world) = (Registry::new(&[]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    registry.set_instances(vec![Instance::new("old", 1).with_id("x")]).await;
    let balance = balance(&endpointer);
    assert_eq!(answers(&balance, 1).await, ["old"]);
    registry.set_instances(vec![Instance::new("new", 1).with_id("x")]).await;
    assert_eq!(answers(&balance, 3).await, ["new", "new", "new"]);
    assert_eq!((world.n_live("old"), world.n_live("new")), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn instance_that_accepts_no_requests_gets_none() {
    let (mut registry, world) = (Registry::new(&["a", "b"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    let a = Instance::new("a", 1);
    let unfit = [
        a.clone().with_status(InstanceStatus::Critical),
        a.clone().with_status(InstanceStatus::Draining),
        a.clone().with_weight(0),
    ];
    for unfit in unfit {
        registry.set_instances(vec![unfit, Instance::new("b", 1)]).await;
        assert_eq!(answers(&balance, 4).await, ["b"; 4]);
        assert_eq!(report(&endpointer, "a").unwrap().state, EndpointState::Ineligible);
        registry
            .set_instances(vec![
                a.clone().with_status(InstanceStatus::Warning),
                Instance::new("b", 1),
            ])
            .await;
        assert!(answers(&balance, 4).await.contains(&"a".to_owned()));
    }
    assert_eq!(world.n_made("a"), 1, "its service is kept");
    registry.set_instances(vec![a.with_weight(0)]).await;
    let started = Instant::now();
    let error = call(&balance).await.unwrap_err();
    assert_eq!(
        error.downcast_ref::<NoInstances>().unwrap().reason(),
        NoInstancesReason::Ineligible
    );
    assert_eq!(started.elapsed(), Duration::ZERO);
}

/// The order of kube-proxy: what serves and terminates is used when nothing is ready.
#[tokio::test(start_paused = true)]
async fn draining_instance_is_used_before_critical_ones_only() {
    let (mut registry, world) = (Registry::new(&[]), World::default());
    let balance = balance(&endpointer(&registry, &world).await);
    let draining = Instance::new("draining", 1).with_status(InstanceStatus::Draining);
    let critical = Instance::new("critical", 1).with_status(InstanceStatus::Critical);
    registry.set_instances(vec![critical.clone(), draining.clone()]).await;
    assert_eq!(answers(&balance, 4).await, ["draining"; 4]);
    registry.set_instances(vec![critical, draining, Instance::new("fit", 1)]).await;
    assert_eq!(answers(&balance, 4).await, ["fit"; 4]);
}

/// Field bug 6 (linkerd2#2550): a balancer that learns of changes only while requests flow.
#[tokio::test(start_paused = true)]
async fn idle_endpointer_applies_updates_within_ten_milliseconds() {
    let (mut registry, world) = (Registry::new(&["a", "b"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    tokio::time::advance(Duration::from_secs(3_600)).await;
    let started = Instant::now();
    registry.set(&["b"]).await;
    assert!(started.elapsed() <= Duration::from_millis(10));
    assert_eq!(world.n_live("a"), 0);
    assert!(report(&endpointer, "a").is_none());
}

/// Field bug 10 (tower#856): what `poll_ready` has chosen is gone, or another's place, when `call`
/// comes.
#[tokio::test(start_paused = true)]
async fn removal_between_ready_and_call_costs_no_request() {
    let (mut registry, world) = (Registry::new(&["a", "b", "c"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let mut ready: Vec<_> = (0..6).map(|_| balance(&endpointer)).collect();
    for balance in &mut ready {
        balance.ready().await.unwrap();
    }
    registry.set(&["c"]).await;
    for mut balance in ready {
        assert_eq!(balance.call(1).await.unwrap(), "c");
    }
}

#[tokio::test(start_paused = true)]
async fn instance_that_returns_while_it_drains_gets_its_endpoint_back() {
    let (mut registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    answers(&balance, 4).await;
    world.answer("a", Mode::Hangs);
    let in_flight = start({
        let balance = balance.clone();
        async move { call(&balance).await }
    });
    settle().await;
    registry.set(&[]).await;
    let a = report(&endpointer, "a").unwrap();
    assert_eq!((a.state, a.in_flight), (EndpointState::Draining, 1));
    assert!(call(&balance).await.is_err(), "it gets no new requests");
    registry.set(&["a"]).await;
    let a = report(&endpointer, "a").unwrap();
    assert_eq!((a.state, a.in_flight, a.picks), (EndpointState::Ready, 1, 5));
    assert_eq!((world.n_made("a"), world.n_live("a")), (1, 1));
    world.answer("a", Mode::Works);
    assert_eq!(in_flight.await.unwrap().unwrap(), "a");
    assert_eq!(answers(&balance, 1).await, ["a"]);
    assert_eq!(n_in_flight(&endpointer), 0);
}

#[tokio::test(start_paused = true)]
async fn draining_is_bounded() {
    let (mut registry, world) = (Registry::new(&["a"]), World::default());
    let config = EndpointerConfig::new().drain_timeout(Duration::from_secs(5));
    let endpointer = Endpointer::with_config(&registry, factory_fn(world.factory()), config);
    settle().await;
    let (_service, lease) = balance(&endpointer).lease().await.unwrap();
    drop(_service);
    registry.set(&[]).await;
    tokio::time::sleep(Duration::from_millis(4_900)).await;
    assert_eq!(world.n_live("a"), 1);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.n_live("a"), 0);
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_requests_within_the_drain_timeout() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    world.answer("a", Mode::Hangs);
    let in_flight = start(async move { call(&balance).await });
    settle().await;
    let closing = start({
        let endpointer = endpointer.clone();
        async move { endpointer.close().await }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!closing.is_finished());
    world.answer("a", Mode::Works);
    assert_eq!(in_flight.await.unwrap().unwrap(), "a");
    let started = Instant::now();
    closing.await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(10));
    assert_eq!(world.n_live_in_all(), 0);
}

#[tokio::test(start_paused = true)]
async fn close_gives_up_after_the_drain() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let (service, lease) = balance(&endpointer).lease().await.unwrap();
    drop(service);
    let started = Instant::now();
    endpointer.close().await;
    assert_eq!(started.elapsed().as_secs(), 30);
    assert_eq!(world.n_live_in_all(), 0);
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn last_handle_drops_every_service_immediately() {
    let (mut registry, world) = (Registry::new(&["a", "b", "c"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    answers(&balance, 6).await;
    let (service, lease) = balance.lease().await.unwrap();
    drop(service);
    // One of them drains, with a lease that is never given back.
    let left: Vec<_> =
        ["a", "b", "c"].into_iter().filter(|h| !lease.instance().as_str().starts_with(h)).collect();
    registry.set(&left).await;
    assert_eq!(world.n_live_in_all(), 3);
    drop(endpointer);
    assert_eq!(world.n_live_in_all(), 3, "the balance is a handle too");
    drop(balance);
    assert_eq!(world.n_live_in_all(), 0);
    drop(lease);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_thread_that_once_picked_keeps_a_service_open() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    endpointer.ready(Duration::from_secs(5)).await.unwrap();
    let balance = balance(&endpointer);
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let balance = balance.clone();
            std::thread::spawn(move || assert!(balance.choose().is_some()))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    drop((endpointer, balance));
    assert_eq!(world.n_live_in_all(), 0);
}

#[tokio::test(start_paused = true)]
async fn factories_run_concurrently_up_to_the_bound() {
    let hosts: Vec<_> = (0..10).map(|i| format!("h{i}")).collect();
    let hosts: Vec<_> = hosts.iter().map(String::as_str).collect();
    let (registry, world) = (Registry::new(&hosts), World::default());
    hosts.iter().for_each(|host| world.make(host, Mode::Hangs));
    let config =
        EndpointerConfig::new().max_concurrent_creations(4).create_timeout(Duration::from_secs(2));
    let _endpointer = Endpointer::with_config(&registry, factory_fn(world.factory()), config);
    settle().await;
    let n_made = || hosts.iter().map(|host| world.n_made(host)).sum::<usize>();
    assert_eq!(n_made(), 4);
    tokio::time::sleep(Duration::from_millis(2_010)).await;
    assert!(n_made() >= 8, "those that take too long make room: {}", n_made());
}

#[tokio::test(start_paused = true)]
async fn what_a_factory_brings_for_one_that_has_left_is_dropped() {
    let (mut registry, world) = (Registry::new(&["a"]), World::default());
    world.make("a", Mode::Hangs);
    let endpointer = endpointer(&registry, &world).await;
    registry.set(&[]).await;
    world.make("a", Mode::Works);
    settle().await;
    assert_eq!(world.n_live("a"), 0);
    assert!(endpointer.report().endpoints.is_empty());
    registry.set(&["a"]).await;
    assert_eq!((world.n_made("a"), world.n_live("a")), (2, 1));
}

/// The factory ends just when the instance moves.
#[tokio::test(start_paused = true)]
async fn service_of_an_earlier_address_is_dropped() {
    let (mut registry, world) = (Registry::new(&[]), World::default());
    ["a", "b"].iter().for_each(|host| world.make(host, Mode::Hangs));
    let endpointer = endpointer(&registry, &world).await;
    let at = |host| vec![Instance::new(host, 1).with_id("one")];
    registry.set_instances(at("a")).await;
    world.make("a", Mode::Works);
    registry.set_instances(at("b")).await;
    assert_eq!(endpointer.report().endpoints[0].state, EndpointState::Creating);
    world.make("b", Mode::Works);
    assert_eq!(answers(&balance(&endpointer), 1).await, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn factory_that_panics_is_called_again() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    world.make("a", Mode::Panics);
    let endpointer = endpointer(&registry, &world).await;
    assert_eq!(report(&endpointer, "a").unwrap().error.unwrap(), "the factory panicked");
    assert_eq!(answers(&balance(&endpointer), 2).await, ["b", "b"]);
    world.make("a", Mode::Works);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(report(&endpointer, "a").unwrap().state, EndpointState::Ready);
}

#[tokio::test(start_paused = true)]
async fn ready_waits_for_the_first_endpoint_or_reports_a_reason() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.make("a", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    let none = endpointer.ready(Duration::from_secs(2)).await.unwrap_err();
    assert_eq!(none.reason(), NoInstancesReason::NotReady);
    assert_eq!(std::error::Error::source(&none).unwrap().to_string(), "a cannot be made");
    let ready = start({
        let endpointer = endpointer.clone();
        async move { endpointer.ready(Duration::from_secs(60)).await }
    });
    settle().await;
    assert!(!ready.is_finished());
    world.make("a", Mode::Works);
    ready.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn inspect_can_be_serialised() {
    let (mut registry, world) = (Registry::new(&["a", "b"]), World::default());
    world.make("b", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    answers(&balance(&endpointer), 3).await;
    registry.fail("outage").await;
    let json = serde_json::to_value(endpointer.report()).unwrap();
    let [a, b] = json["endpoints"].as_array().unwrap().as_slice() else { panic!("two: {json}") };
    assert_eq!(a["instance"]["id"], "a:1");
    assert_eq!((&a["state"], &a["picks"], &a["error"]), (&"ready".into(), &3.into(), &().into()));
    assert_eq!((&b["state"], &b["error"]), (&"creating".into(), &"b cannot be made".into()));
    assert_eq!(json["service"], "test");
    assert!(json["trouble"].as_str().unwrap().contains("outage"));
    tokio::time::advance(Duration::from_millis(1500)).await;
    let json = serde_json::to_value(endpointer.report()).unwrap();
    let since = json["endpoints"][0]["since"].as_f64().unwrap();
    assert!((1500.0..1600.0).contains(&since), "milliseconds: {json}");
}

#[tokio::test(start_paused = true)]
async fn thousands_come_and_go() {
    let names: Vec<_> = (0..2_000).map(|i| format!("host-{i:04}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let (mut registry, world) = (Registry::new(&names), World::default());
    let endpointer: Endpointer<Client> = endpointer(&registry, &world).await;
    assert_eq!(world.n_live_in_all(), 2_000);
    let every_third: Vec<_> = names.iter().copied().step_by(3).collect();
    registry.set(&every_third).await;
    assert_eq!(world.n_live_in_all(), every_third.len());
    let answers: std::collections::HashSet<_> =
        answers(&balance(&endpointer), every_third.len()).await.into_iter().collect();
    assert_eq!(answers.len(), every_third.len());
    registry.set_instances(instances(&names)).await;
    assert_eq!(world.n_live_in_all(), 2_000);
}
