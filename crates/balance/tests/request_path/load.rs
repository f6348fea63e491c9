//! Balancers that judge by latency, with slow and recovered instances.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll},
    thread,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower::{
    Layer, Service, ServiceExt,
    balance::p2c,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PeakEwma},
    timeout::TimeoutLayer,
    util::BoxCloneSyncService,
};
use tower_sd_balance::{
    BalanceLayer, Balancer, BoxError, Choice, Endpointer, FactoryExt, FixedInstancer, Instance,
    LeastLoaded, Members, NoInstances, NoInstancesReason, Picker, Protocol, RoundRobin, ZoneAware,
    factory_fn,
};

use crate::{
    fleet::{Fleet, Node, REJECTED},
    support::{Mode, Registry, World, all_ready, answers, call, endpointer, settle},
};

const SECOND: Duration = Duration::from_secs(1);
/// 100 requests a second.
const INTERVAL: Duration = Duration::from_millis(10);

/// tower's balancer over the same instances, as tonic has it.
fn tower_peak_ewma(fleet: &Fleet) -> BoxCloneSyncService<(), u16, BoxError> {
    let nodes = fleet.instances().into_iter().map(|instance| {
        let node = fleet.node(instance.port());
        PeakEwma::new(node, 30 * SECOND / 1_000, 10e9, CompleteOnResponse::default())
    });
    let balance = p2c::Balance::new(ServiceList::new(nodes.collect::<Vec<_>>()));
    BoxCloneSyncService::new(Buffer::new(balance, 1024))
}

#[tokio::test(start_paused = true)]
async fn instance_that_fails_fast_gets_less_than_its_share() {
    let fleet = Fleet::new(10);
    fleet.fail(3, true);
    let (_endpointer, client) = fleet.client(LeastLoaded::new(), |instance| instance).await;
    let (requests, n_failed) = fleet.load(&client, 6_000, INTERVAL).await;
    assert!(requests[&3] <= 30 && n_failed <= 30, "{requests:?}");
    let (_endpointer, client) = fleet.client(RoundRobin::new(), |instance| instance).await;
    let (requests, n_failed) = fleet.load(&client, 6_000, INTERVAL).await;
    assert!(requests[&3] <= 30 && n_failed <= 30, "{requests:?}");
    // tower counts its failures as low latency.
    let (requests, _) = fleet.load(&tower_peak_ewma(&fleet), 6_000, INTERVAL).await;
    assert!(requests[&3] > 600, "{requests:?}");
}

/// What [`REJECTED`] is.
struct Rejecting;

impl Protocol<(), u16> for Rejecting {
    fn copy(&self, (): &()) -> Option<()> {
        None
    }

    fn is_rejection(&self, response: &u16) -> bool {
        *response == REJECTED
    }
}

/// It has nothing in flight, however many requests it gets.
#[tokio::test(start_paused = true)]
async fn instance_that_rejects_fast_gets_little_until_it_recovers() {
    for interval in [INTERVAL * 3, INTERVAL, INTERVAL / 10] {
        let fleet = Fleet::new(3);
        fleet.reject(3, true);
        let nodes = fleet.clone();
        let factory = factory_fn(move |instance: Instance| {
            let node = nodes.node(instance.port());
            async move { Ok(node) }
        });
        let instances = FixedInstancer::new(fleet.instances());
        let endpointer = Endpointer::new(&instances, factory.protocol(Rejecting));
        all_ready(&endpointer, 3).await;
        let client = BalanceLayer::new(LeastLoaded::new()).with_seed(1).layer(endpointer);
        let (requests, _) = fleet.load(&client, 6_000, interval).await;
        assert!(requests[&3] <= 60, "{interval:?}: {requests:?}");
        fleet.reject(3, false);
        fleet.load(&client, 6_000, INTERVAL).await;
        fleet.reject(3, true);
        let (requests, _) = fleet.load(&client, 6_000, interval).await;
        assert!(requests[&3] <= 60, "after successes, {interval:?}: {requests:?}");
        fleet.reject(3, false);
        fleet.load(&client, 1_000, INTERVAL).await;
        let (requests, _) = fleet.load(&client, 3_000, interval).await;
        assert!(requests[&3] >= 800, "recovered, {interval:?}: {requests:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_instance_gets_two_percent_until_it_recovers() {
    let fleet = Fleet::new(10);
    fleet.slow(3, SECOND / 10);
    let (endpointer, client) = fleet.client(LeastLoaded::new(), |instance| instance).await;
    let (requests, _) = fleet.load(&client, 6_000, INTERVAL).await;
    assert!(requests[&3] <= 120, "{requests:?}");
    let slow = |endpointer: &Endpointer<Node>| {
        let endpoints = endpointer.report().endpoints;
        endpoints.into_iter().find(|it| it.instance.port() == 3).unwrap().latency.unwrap()
    };
    assert!(slow(&endpointer) > SECOND / 20, "{:?}", slow(&endpointer));
    fleet.slow(3, SECOND / 100);
    fleet.load(&client, 1_000, INTERVAL).await;
    let (requests, _) = fleet.load(&client, 1_000, INTERVAL).await;
    assert!(requests[&3] >= 80, "{requests:?}");
    assert!(slow(&endpointer) < SECOND / 50);
}

/// Half of the instances weigh a third of the others.
#[tokio::test(start_paused = true)]
async fn weights_hold_within_ten_points_under_any_load() {
    for n in [2, 4, 10] {
        for interval in [INTERVAL * 2, INTERVAL / 10] {
            let fleet = Fleet::new(n);
            let weigh = |instance: Instance| {
                let weight = if instance.port() <= n / 2 { 1 } else { 3 };
                instance.with_weight(weight)
            };
            let (_endpointer, client) = fleet.client(LeastLoaded::new(), weigh).await;
            let (requests, _) = fleet.load(&client, 10_000, interval).await;
            let light: usize = requests.range(..=n / 2).map(|(_, n)| n).sum();
            assert!((1_500..3_500).contains(&light), "{n}, {interval:?}: {requests:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn random_cancellation_leaves_nothing_in_flight() {
    let fleet = Fleet::new(10);
    fleet.fail(3, true);
    let (endpointer, client) = fleet.client(LeastLoaded::new(), |instance| instance).await;
    let mut rng = StdRng::seed_from_u64(7);
    for _ in 0..1_000 {
        let requests = (0..100).map(|_| {
            let bound = Duration::from_millis(rng.random_range(0..20));
            timeout(bound, client.clone().oneshot(()))
        });
        futures_util::future::join_all(requests).await;
    }
    sleep(SECOND).await;
    let report = endpointer.report();
    assert!(report.endpoints.iter().all(|endpoint| endpoint.in_flight == 0), "{report:?}");
    let picks: u64 = report.endpoints.iter().map(|endpoint| endpoint.picks).sum();
    assert!(picks >= 99_000, "{picks}");
}

/// Its index is none of the set.
#[derive(Debug)]
pub(crate) struct Wrong;

impl Balancer for Wrong {
    fn picker(&self, _: &Members<'_>) -> Arc<dyn Picker> {
        Arc::new(Self)
    }
}

impl Picker for Wrong {
    fn pick(&self, choice: &mut Choice<'_>) -> Option<usize> {
        Some(choice.len() + 5)
    }
}

#[tokio::test(start_paused = true)]
async fn index_out_of_range_is_an_immediate_error() {
    let fleet = Fleet::new(3);
    let (_endpointer, client) = fleet.client(Wrong, |instance| instance).await;
    let begun = Instant::now();
    let error = client.oneshot(()).await.expect_err("no such member");
    let none = error.downcast_ref::<NoInstances>().expect("no instances");
    assert_eq!(none.reason(), NoInstancesReason::OutOfRange);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

/// It ignores which members are usable.
#[derive(Debug)]
struct First;

impl Balancer for First {
    fn picker(&self, _: &Members<'_>) -> Arc<dyn Picker> {
        Arc::new(Self)
    }
}

impl Picker for First {
    fn pick(&self, _: &mut Choice<'_>) -> Option<usize> {
        Some(0)
    }
}

/// What the only instance answers that is ready after 10 ms, if at all.
#[tokio::main(flavor = "current_thread")]
async fn answer_of_one_that_is_not_ready(mode: Mode) -> Result<String, NoInstancesReason> {
    tokio::time::pause();
    let (registry, world) = (Registry::new(&["a"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    world.ready("a", mode);
    let client = BalanceLayer::new(First).layer(endpointer.clone());
    let works = async {
        sleep(INTERVAL).await;
        if mode == Mode::Hangs {
            world.ready("a", Mode::Works);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = call(&client) => answer.map_err(|error| {
            error.downcast_ref::<NoInstances>().expect("no instances").reason()
        }),
        () = works => unreachable!("it is pending"),
    }
}

#[test]
fn picker_that_ignores_what_is_usable_hangs_no_thread() {
    for (mode, expected) in
        [(Mode::Hangs, Ok("a".to_owned())), (Mode::Fails, Err(NoInstancesReason::Refused))]
    {
        let (sender, receiver) = mpsc::channel();
        // On a thread of its own, which a request that hangs takes along.
        thread::spawn(move || sender.send(answer_of_one_that_is_not_ready(mode)));
        let answer = receiver.recv_timeout(10 * SECOND).expect("an end");
        assert_eq!(answer, expected, "{mode:?}");
    }
}

/// Callers give up after 50 ms: it has never answered.
#[tokio::test(start_paused = true)]
async fn instance_that_hangs_from_the_start_gets_two_percent() {
    let fleet = Fleet::new(10);
    fleet.slow(3, 1_000 * SECOND);
    let (_endpointer, client) = fleet.client(LeastLoaded::new(), |instance| instance).await;
    let client = TimeoutLayer::new(5 * INTERVAL).layer(client);
    let (requests, _) = fleet.load(&client, 6_000, INTERVAL).await;
    assert!(requests[&3] <= 120, "{requests:?}");
}

/// As HTTP without idle connections: each request connects for 5 ms.
struct Connecting(Node, Option<Pin<Box<Sleep>>>);

impl Clone for Connecting {
    fn clone(&self) -> Self {
        Self(self.0.clone(), None)
    }
}

impl Service<()> for Connecting {
    type Response = u16;
    type Error = BoxError;
    type Future = <Node as Service<()>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.1.get_or_insert_with(|| Box::pin(sleep(INTERVAL / 2))).as_mut().poll(cx).map(Ok)
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.0.call(())
    }
}

#[tokio::test(start_paused = true)]
async fn latency_counts_where_each_request_connects() {
    let fleet = Fleet::new(10);
    fleet.slow(3, SECOND / 10);
    let nodes = fleet.clone();
    let endpointer = Endpointer::with(&FixedInstancer::new(fleet.instances()), move |instance| {
        let node = nodes.node(instance.port());
        async move { Ok(Connecting(node, None)) }
    });
    all_ready(&endpointer, 10).await;
    let client = BalanceLayer::new(LeastLoaded::new()).with_seed(1).layer(endpointer.clone());
    let (requests, _) = fleet.load(&client, 2_000, 2 * INTERVAL).await;
    assert!(requests[&3] <= 40, "{requests:?}");
    let latencies = endpointer.report().endpoints.into_iter().map(|it| it.latency.unwrap());
    let fast = latencies.filter(|latency| (SECOND / 100..SECOND / 90).contains(latency)).count();
    assert_eq!(fast, 9, "the connection is no part of it");
}

/// The own zone has four members: with two of them down it takes 70 % of the load.
#[tokio::test(start_paused = true)]
async fn only_the_missing_share_of_a_zone_crosses() {
    let hosts = ["a1", "a2", "a3", "a4", "b1", "b2"];
    let (mut registry, world) = (Registry::new(&[]), World::default());
    let zoned = |host: &&str| {
        let zone = host.get(..1).unwrap();
        Instance::new(*host, 1).with_zone(zone)
    };
    registry.set_instances(hosts.iter().map(zoned).collect()).await;
    let endpointer = endpointer(&registry, &world).await;
    let balancer = ZoneAware::new("a", RoundRobin::new());
    let client = Layer::layer(&BalanceLayer::new(balancer).with_seed(1), endpointer.clone());
    let share = |answers: &[String]| answers.iter().filter(|host| host.starts_with('b')).count();
    for (down, expected) in [(None, 0..1), (Some("a1"), 0..1), (Some("a2"), 250..350)] {
        if let Some(down) = down {
            world.ready(down, Mode::Fails);
        }
        for _ in 0..10 {
            call(&client).await.unwrap();
            settle().await;
        }
        let crossed = share(&answers(&client, 1_000).await);
        assert!(expected.contains(&crossed), "{down:?}: {crossed}");
    }
    for host in ["a3", "a4"] {
        world.ready(host, Mode::Fails);
    }
    assert_eq!(share(&answers(&client, 100).await), 100, "the zone is lost, no request is");
}

#[tokio::test(start_paused = true)]
async fn time_that_a_lease_is_held_is_no_latency() {
    let (registry, world) = (Registry::new(&["a", "b"]), World::default());
    let endpointer = endpointer(&registry, &world).await;
    let client = BalanceLayer::default().with_seed(1).layer(endpointer.clone());
    let (_service, guard) = client.lease().await.unwrap();
    let held = guard.instance().clone();
    sleep(Duration::from_secs(3_600)).await;
    drop(guard);
    let mut guards = Vec::new();
    for _ in 0..8 {
        guards.push(client.lease().await.unwrap().1);
    }
    let n = guards.iter().filter(|guard| *guard.instance() == held).count();
    assert!((3..=5).contains(&n), "{n}");
}
