//! Balancers that judge by latency, with slow and recovered instances.

use std::{sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, sleep, timeout};
use tower::{
    ServiceExt,
    balance::p2c,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PeakEwma},
    util::BoxCloneSyncService,
};
use tower_sd_balance::{
    Balancer, BoxError, Choice, LeastLoaded, Members, NoInstances, NoInstancesReason, Picker,
    RoundRobin, ZoneAware,
};

use crate::{
    fleet::{Fleet, Node},
    support::{Mode, Registry, World, answers, call, endpointer, settle},
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

#[tokio::test(start_paused = true)]
async fn slow_instance_gets_two_percent_until_it_recovers() {
    let fleet = Fleet::new(10);
    fleet.slow(3, SECOND / 10);
    let (endpointer, client) = fleet.client(LeastLoaded::new(), |instance| instance).await;
    let (requests, _) = fleet.load(&client, 6_000, INTERVAL).await;
    assert!(requests[&3] <= 120, "{requests:?}");
    let slow = |endpointer: &tower_sd_balance::Endpointer<Node>| {
        let endpoints = endpointer.report().endpoints;
        endpoints.into_iter().find(|it| it.instance.port() == 3).unwrap().latency.unwrap()
    };
    assert!(slow(&endpointer) > SECOND / 20, "{:?}", slow(&endpointer));
    fleet.slow(3, SECOND / 100);
    fleet.load(&client, 1_000, INTERVAL).await;
    let (requests, _) = fleet.load(&client, 1_000, INTERVAL).await;
    assert!(requests[&3] >= 50, "{requests:?}");
    assert!(slow(&endpointer) < SECOND / 50);
}

/// Half of the instances weigh a third of the others.
#[tokio::test(start_paused = true)]
async fn weights_hold_within_ten_points_under_any_load() {
    for n in [2, 4, 10] {
        for interval in [INTERVAL * 2, INTERVAL / 10] {
            let fleet = Fleet::new(n);
            let weigh = |instance: tower_sd_balance::Instance| {
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

#[derive(Debug)]
struct Wrong;

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

/// The own zone has four members: with two of them down it takes 70 % of the load.
#[tokio::test(start_paused = true)]
async fn only_the_missing_share_of_a_zone_crosses() {
    let hosts = ["a1", "a2", "a3", "a4", "b1", "b2"];
    let (mut registry, world) = (Registry::new(&[]), World::default());
    let zoned = |host: &&str| {
        let zone = host.get(..1).unwrap();
        tower_sd_balance::Instance::new(*host, 1).with_zone(zone)
    };
    registry.set_instances(hosts.iter().map(zoned).collect()).await;
    let endpointer = endpointer(&registry, &world).await;
    let balancer = ZoneAware::new("a", RoundRobin::new());
    let client = tower::Layer::layer(
        &tower_sd_balance::BalanceLayer::new(balancer).with_seed(1),
        endpointer.clone(),
    );
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
