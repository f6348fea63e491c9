//! What `LeastLoaded` compares: latencies and requests in flight.

use std::time::Duration;

use tokio::time::sleep;
use tower::{Layer, ServiceExt};
use tower_sd_balance::{BalanceLayer, Endpointer, Instance, LeastLoaded};

use crate::{
    fleet::Fleet,
    support::{Registry, all_ready},
};

const SECOND: Duration = Duration::from_secs(1);
/// 100 requests a second.
const INTERVAL: Duration = Duration::from_millis(10);

/// It cannot be read, is empty, lists a part, and then what it has listed before.
#[tokio::test(start_paused = true)]
async fn latencies_survive_a_restart_of_the_registry() {
    let fleet = Fleet::new(4);
    fleet.slow(3, SECOND / 10);
    let (mut registry, nodes, all) = (Registry::guarded(&[]), fleet.clone(), fleet.instances());
    let endpointer = Endpointer::with(&registry, move |instance: Instance| {
        let node = nodes.node(instance.port());
        async move { Ok(node) }
    });
    registry.set_instances(all.clone()).await;
    all_ready(&endpointer, 4).await;
    let client = BalanceLayer::new(LeastLoaded::new()).with_seed(1).layer(endpointer.clone());
    fleet.load(&client, 1_000, INTERVAL).await;
    let known = || -> Vec<_> {
        let endpoints = endpointer.report().endpoints;
        endpoints
            .into_iter()
            .map(|it| (it.instance.port(), it.latency.unwrap(), it.picks))
            .collect()
    };
    let before = known();
    registry.fail("connection refused").await;
    assert_eq!(known(), before);
    for listed in [&[], &all[1..3], &all[..]] {
        let before = known();
        registry.set_instances(listed.to_vec()).await;
        assert_eq!(known(), before, "{} listed", listed.len());
        let (requests, n_failed) = fleet.load(&client, 500, INTERVAL).await;
        assert!(requests[&3] <= 25 && n_failed == 0, "{} listed: {requests:?}", listed.len());
    }
}

/// Two instances answer after 10 and 50 ms, and 24 requests stay in flight.
#[tokio::test(start_paused = true)]
async fn requests_in_flight_cost_as_each_setting_has_it() {
    for (balancer, expected) in [
        (LeastLoaded::least_requests(), 12),
        (LeastLoaded::new(), 7),
        (LeastLoaded::peak_ewma(), 4),
    ] {
        let fleet = Fleet::new(2);
        fleet.slow(2, SECOND / 20);
        let (endpointer, client) = fleet.client(balancer, |instance| instance).await;
        fleet.load(&client, 100, SECOND / 100).await;
        let mut guards = Vec::new();
        for _ in 0..24 {
            guards.push(client.lease().await.unwrap().1);
        }
        let slow = guards.iter().filter(|guard| guard.instance().as_str() == "h:2").count();
        assert_eq!(slow, expected, "{balancer:?}: {:?}", endpointer.report());
    }
}

/// One instance answers after 10, 100 and 10 ms, with pauses of 2 s.
#[tokio::test(start_paused = true)]
async fn settings_decide_how_fast_an_average_follows() {
    for (balancer, expected) in [
        (LeastLoaded::new(), [10, 19, 18]),
        (LeastLoaded::new().decay(SECOND), [10, 88, 20]),
        (LeastLoaded::peak_ewma(), [10, 100, 83]),
        (LeastLoaded::peak_ewma().decay(SECOND), [10, 100, 22]),
    ] {
        let fleet = Fleet::new(1);
        let (endpointer, client) = fleet.client(balancer, |instance| instance).await;
        let mut averages = Vec::new();
        for latency in [10, 100, 10] {
            fleet.slow(1, Duration::from_millis(latency));
            client.clone().oneshot(()).await.unwrap();
            averages.push(endpointer.report().endpoints[0].latency.unwrap().as_millis());
            sleep(2 * SECOND).await;
        }
        assert_eq!(averages, expected, "{balancer:?}");
    }
}
