//! Balancers that judge by latency, and what they do with slow and recovered instances.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{sleep, timeout};
use tower::{
    ServiceExt,
    balance::p2c,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PeakEwma},
    util::BoxCloneSyncService,
};
use tower_sd_balance::{BoxError, LeastLoaded, RoundRobin};

use crate::fleet::{Fleet, Node};

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
async fn slow_instance_gets_two_percent_and_its_share_when_it_recovers() {
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

#[tokio::test(start_paused = true)]
async fn weights_hold_within_ten_points_under_load() {
    let fleet = Fleet::new(2);
    let weigh = |instance: tower_sd_balance::Instance| {
        let weight = if instance.port() == 1 { 1 } else { 3 };
        instance.with_weight(weight)
    };
    let (_endpointer, client) = fleet.client(LeastLoaded::new(), weigh).await;
    let (requests, _) = fleet.load(&client, 10_000, INTERVAL / 10).await;
    assert!((1_500..3_500).contains(&requests[&1]), "{requests:?}");
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
