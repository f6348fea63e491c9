//! Endpoints that refuse: down, held, tried last; and waiting when none is left.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tower_sd_balance::{
    EndpointReport, EndpointState, Endpointer, FailureClass, FixedInstancer, Instance,
    InstanceStatus, NoInstances, NoInstancesReason, Outcome,
};
use tower_sd_core::{MemoryRegistry, Registration};

use crate::support::{
    Mode, Registry, World, answers, balance, call, endpointer, endpointer_with, instances,
    n_in_flight, report, settle, start,
};

fn state(report: Option<EndpointReport>) -> EndpointState {
    report.expect("a member").state
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_refuses_costs_no_request() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    world.ready("a", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    let started = Instant::now();
    assert!(answers(&balance(&endpointer), 100).await.iter().all(|host| host == "b"));
    assert_eq!(started.elapsed(), Duration::ZERO);
    settle().await;
    let a = report(&endpointer, "a").unwrap();
    assert_eq!((a.state, a.picks, a.failures), (EndpointState::Down, 0, 0));
    assert_eq!(a.error.unwrap(), "a refuses");
    assert_eq!(n_in_flight(&endpointer), 0);
}

/// As in influxdb_iox issue 6508: an endpoint that fails once is gone for good from a list that
/// does not change.
#[tokio::test(start_paused = true)]
async fn down_endpoint_comes_back_without_a_request() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    world.ready("a", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    answers(&balance, 2).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(state(report(&endpointer, "a")), EndpointState::Down);
    world.ready("a", Mode::Works);
    sleep(Duration::from_secs(11)).await;
    assert_eq!(state(report(&endpointer, "a")), EndpointState::Ready);
    assert_eq!(world.n_live("a"), 1, "made again meanwhile, and the one before is dropped");
    assert!(answers(&balance, 2).await.contains(&"a".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_hangs_while_it_reconnects_is_tried_again() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    world.ready("a", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    answers(&balance(&endpointer), 2).await;
    world.ready("a", Mode::Hangs);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(state(report(&endpointer, "a")), EndpointState::Down);
    world.ready("a", Mode::Works);
    sleep(Duration::from_secs(11)).await;
    assert_eq!(state(report(&endpointer, "a")), EndpointState::Ready);
}

#[tokio::test(start_paused = true)]
async fn request_waits_for_an_endpoint_that_connects() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.ready("a", Mode::Hangs);
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    let waiting = start(async move { call(&balance).await });
    sleep(Duration::from_millis(300)).await;
    assert_eq!(n_in_flight(&endpointer), 0, "it was not sent");
    assert_eq!(state(report(&endpointer, "a")), EndpointState::Connecting);
    world.ready("a", Mode::Works);
    assert_eq!(waiting.await.unwrap().unwrap(), "a");
    assert_eq!(report(&endpointer, "a").unwrap().picks, 1);
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_is_never_ready_delays_no_request() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    world.ready("a", Mode::Hangs);
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    let started = Instant::now();
    assert_eq!(answers(&balance, 2).await, ["b", "b"]);
    assert_eq!(started.elapsed(), Duration::ZERO);
    sleep(Duration::from_millis(1_010)).await;
    let a = report(&endpointer, "a").unwrap();
    assert_eq!((a.state, a.error.as_deref()), (EndpointState::Down, Some("not ready within 1s")));
    world.ready("b", Mode::Hangs);
    let started = Instant::now();
    let error = call(&balance).await.unwrap_err();
    assert_eq!(started.elapsed().as_millis(), 1_000);
    assert_eq!(error.downcast_ref::<NoInstances>().unwrap().reason(), NoInstancesReason::Refused);
    assert_eq!(n_in_flight(&endpointer), 0);
}

#[tokio::test(start_paused = true)]
async fn error_after_the_bounded_wait_reports_that_all_refused() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    world.ready("a", Mode::Fails);
    world.ready("b", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    let started = Instant::now();
    let error = call(&balance(&endpointer)).await.unwrap_err();
    assert_eq!(started.elapsed().as_millis(), 1_000);
    let none: &NoInstances = error.downcast_ref().unwrap();
    assert_eq!(none.reason(), NoInstancesReason::Refused);
    assert!(none.source().unwrap().to_string().ends_with("refuses"));
    assert_eq!(n_in_flight(&endpointer), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_served_when_an_instance_appears() {
    let (mut registry, world) = (Registry::new(&["a"]), World::default());
    world.make("a", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    let waiting = start(async move { call(&balance).await });
    sleep(Duration::from_millis(500)).await;
    registry.set(&["a", "b"]).await;
    assert_eq!(waiting.await.unwrap().unwrap(), "b");
}

#[tokio::test(start_paused = true)]
async fn down_endpoint_is_tried_when_no_other_is_left() {
    let (registry, world) = (Registry::new(&["a"]), World::default());
    world.ready("a", Mode::Fails);
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    assert!(call(&balance).await.is_err());
    sleep(Duration::from_secs(120)).await;
    world.ready("a", Mode::Works);
    let started = Instant::now();
    assert_eq!(answers(&balance, 1).await, ["a"], "no need to wait for its pause to end");
    // It may have been probed just now.
    assert!(started.elapsed() <= Duration::from_millis(100), "{:?}", started.elapsed());
    assert_eq!(state(report(&endpointer, "a")), EndpointState::Ready);
}

#[tokio::test(start_paused = true)]
async fn held_endpoints_can_be_kept_for_when_none_is_ready() {
    let (mut registry, world) = (Registry::guarded(&["a", "b", "c", "d", "e"]), World::default());
    let endpointer = endpointer_with(&registry, &world, |config| config.held_below(0)).await;
    let balance = balance(&endpointer);
    registry.set(&["a"]).await;
    assert_eq!(state(report(&endpointer, "b")), EndpointState::Held);
    assert_eq!(answers(&balance, 8).await, ["a"; 8]);
    world.ready("a", Mode::Fails);
    let answers = answers(&balance, 8).await;
    assert!(answers.iter().all(|host| host != "a"), "{answers:?}");
    assert_eq!(state(report(&endpointer, "a")), EndpointState::Down);
    assert_eq!(world.n_live_in_all(), 5);
}

/// A registry that has lost most instances leaves the load where it was.
#[tokio::test(start_paused = true)]
async fn held_endpoints_share_load_while_few_are_listed() {
    let (mut registry, world) = (Registry::guarded(&["a", "b", "c", "d", "e"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    registry.set(&["a"]).await;
    let mut shares = answers(&balance, 5).await;
    shares.sort();
    assert_eq!(shares, ["a", "b", "c", "d", "e"]);
    assert_eq!(state(report(&endpointer, "b")), EndpointState::Held);
    registry.set(&["a", "b", "c"]).await;
    let shares = answers(&balance, 6).await;
    assert!(shares.iter().all(|host| host < &"d".to_owned()), "{shares:?}");
}

/// Below the threshold a status counts for nothing; above it, critical endpoints get no request.
#[tokio::test(start_paused = true)]
async fn critical_endpoints_share_load_below_the_panic_threshold() {
    let (mut registry, world) = (Registry::new(&["a", "b", "c"]), World::default());
    let endpointer = endpointer_with(&registry, &world, |config| config.panic_below(50)).await;
    let balance = balance(&endpointer);
    let with_critical = |critical: &[&str]| {
        instances(&["a", "b", "c"])
            .into_iter()
            .map(|instance| match critical.contains(&instance.host()) {
                true => instance.with_status(InstanceStatus::Critical),
                false => instance,
            })
            .collect::<Vec<_>>()
    };
    registry.set_instances(with_critical(&["c"])).await;
    assert!(!answers(&balance, 6).await.contains(&"c".to_owned()));
    registry.set_instances(with_critical(&["b", "c"])).await;
    let mut shares = answers(&balance, 3).await;
    shares.sort();
    assert_eq!(shares, ["a", "b", "c"]);
}

/// What has no weight counts on neither side.
#[tokio::test(start_paused = true)]
async fn threshold_of_panic_is_a_share_of_the_members_with_a_weight() {
    let (mut registry, world) = (Registry::new(&[]), World::default());
    let endpointer = endpointer_with(&registry, &world, |config| config.panic_below(60)).await;
    let balance = balance(&endpointer);
    for (n_critical, serving) in [(2, vec!["a", "b", "c"]), (3, vec!["a", "b", "c", "d", "e"])] {
        let hosts = ["a", "b", "c", "d", "e"];
        let mut members = instances(&hosts);
        for critical in members.iter_mut().rev().take(n_critical) {
            *critical = critical.clone().with_status(InstanceStatus::Critical);
        }
        let idle = Instance::new("idle", 1).with_weight(0);
        members.push(idle.with_status(InstanceStatus::Critical));
        registry.set_instances(members).await;
        let mut answers = answers(&balance, 30).await;
        answers.sort();
        answers.dedup();
        assert_eq!(answers, serving, "{n_critical} of five are critical");
    }
}

#[tokio::test(start_paused = true)]
async fn held_one_that_refuses_is_dropped_until_it_is_listed_again() {
    let (mut registry, world) = (Registry::guarded(&["a", "b", "c"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    registry.set(&[]).await;
    assert_eq!(state(report(&endpointer, "a")), EndpointState::Held);
    world.ready("a", Mode::Fails);
    world.ready("b", Mode::Fails);
    for _ in 0..10 {
        assert_eq!(call(&balance).await.unwrap(), "c");
    }
    settle().await;
    assert_eq!(state(report(&endpointer, "a")), EndpointState::Down);
    // Probed twice more.
    sleep(Duration::from_secs(1)).await;
    let dropped = ["a", "b"].iter().filter(|host| report(&endpointer, host).is_none()).count();
    assert_eq!(dropped, 2);
    assert_eq!((world.n_live("a"), world.n_live("b"), world.n_live("c")), (0, 0, 1));
    registry.set(&["c"]).await;
    assert!(report(&endpointer, "a").is_none());
    world.ready("a", Mode::Works);
    registry.set(&["a", "c"]).await;
    assert_eq!(state(report(&endpointer, "a")), EndpointState::Ready);
}

#[tokio::test(start_paused = true)]
async fn public_lease_counts_and_picks_like_a_call() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let balance = balance(&endpointer);
    let (_first, one) = balance.lease().await.unwrap();
    let (_second, two) = balance.lease().await.unwrap();
    assert_ne!(one.instance(), two.instance());
    assert_eq!(n_in_flight(&endpointer), 2);
    two.done(Outcome::Failed(FailureClass::Exchange));
    drop(one);
    assert_eq!(n_in_flight(&endpointer), 0);
    let endpoints = endpointer.report().endpoints;
    assert_eq!(endpoints.iter().map(|endpoint| endpoint.picks).sum::<u64>(), 2);
    assert_eq!(endpoints.iter().map(|endpoint| endpoint.failures).sum::<u64>(), 1);
}

/// Its task is gone, and its readiness pending for good.
#[tokio::test(start_paused = true)]
async fn service_that_is_pending_for_good_is_made_again() {
    let n_made = Arc::new(AtomicUsize::new(0));
    let made = Arc::clone(&n_made);
    let endpointer = Endpointer::with(&FixedInstancer::new([Instance::new("a", 1)]), move |_| {
        let world = World::default();
        if made.fetch_add(1, SeqCst) == 0 {
            world.ready("a", Mode::Hangs);
        }
        world.factory()(Instance::new("a", 1))
    });
    let balance = balance(&endpointer);
    endpointer.ready(Duration::from_secs(1)).await.unwrap();
    call(&balance).await.unwrap_err();
    sleep(Duration::from_secs(90)).await;
    assert_eq!(call(&balance).await.unwrap(), "a");
    assert_eq!(n_made.load(SeqCst), 2);
}

/// Each has a loop of its own at the registry, as a process has.
#[tokio::test(start_paused = true)]
async fn clients_of_a_dead_instance_leave_the_registry_alone() {
    const CLIENTS: u64 = 5;
    let (registry, world) = (MemoryRegistry::new(), World::default());
    let dead = Registration::new("s", Instance::new("127.0.0.1", 1));
    let handle = registry.register(dead).await.unwrap();
    world.ready("127.0.0.1", Mode::Fails);
    for _ in 0..CLIENTS {
        let client = balance(&Endpointer::with(&registry.instancer("s"), world.factory()));
        drop(start(async move {
            loop {
                call(&client).await.unwrap_err();
                sleep(Duration::from_secs(4)).await;
            }
        }));
    }
    let n_reads = || registry.n_calls() - handle.stats().renewed;
    sleep(Duration::from_secs(60)).await;
    let before = n_reads();
    sleep(Duration::from_secs(240)).await;
    let n = n_reads() - before;
    assert!((1..=48).contains(&(n / CLIENTS)), "{n} reads: 0.2 a second of each at most");
}
