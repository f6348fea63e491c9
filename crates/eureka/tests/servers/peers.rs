use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_sd_core::{Instancer, Registration, RegistrationState};
use tower_sd_eureka::Eureka;
use tower_sd_testkit::{
    proxy::Fault,
    real,
    servers::required,
    wait::{fresh_with, shows},
};

use crate::support::{BOUND, Pair, client, entry_that, instance, query};

/// One server is killed, then both for a while; each comes back empty. Two minutes and more: JVMs
/// start and replicate slowly.
mod slow {
    use super::*;

    #[tokio::test]
    #[ignore = "needs eureka"]
    async fn peers_that_fail_one_after_the_other_cost_no_request() {
        let n = outage(Duration::from_secs(10)).await;
        println!("{n} requests, none failed");
    }

    #[tokio::test]
    #[ignore = "needs eureka"]
    async fn peers_that_are_both_down_for_a_minute_cost_no_request() {
        let n = outage(Duration::from_secs(60)).await;
        println!("{n} requests, none failed");
    }

    /// Each has clients that reach it alone.
    #[tokio::test]
    #[ignore = "needs eureka"]
    async fn followers_of_partitioned_peers_agree_after_it_heals() {
        let config = real::EurekaConfig::quick(required("eureka"));
        let pair = real::EurekaPair::start(config).await.expect("two servers");
        let clients = pair.servers.each_ref().map(|server| client(&[server]));
        let register = async |n: usize, id, port| {
            let registration = Registration::new("split", instance(id, port)).fail_fast(BOUND);
            clients[n].register(registration).await.expect("registered")
        };
        let follow = |eureka: &Eureka| eureka.instancer(query("split")).subscribe();
        let [mut at_a, mut at_b] = clients.each_ref().map(follow);
        let _before = [register(0, "a", 1).await, register(1, "b", 2).await];
        for subscription in [&mut at_a, &mut at_b] {
            shows(subscription, &["a", "b"], BOUND).await;
        }
        for link in &pair.links {
            link.set(Fault::BlackHole).await;
        }
        let _meanwhile = [register(0, "c", 3).await, register(1, "d", 4).await];
        // Each server ends the leases whose renewals it does not get; followers hold what is gone.
        shows(&mut at_a, &["a", "c"], BOUND).await;
        shows(&mut at_b, &["b", "d"], BOUND).await;
        for link in &pair.links {
            link.set(Fault::None).await;
        }
        let start = Instant::now();
        for subscription in [&mut at_a, &mut at_b] {
            let all = shows(subscription, &["a", "b", "c", "d"], BOUND).await;
            assert!(all.held().is_empty(), "{all:?}");
        }
        println!("they agree {:?} after it has healed", start.elapsed());
    }
}

async fn outage(lasts: Duration) -> usize {
    let config = real::EurekaConfig::quick(required("eureka"));
    let pair = real::EurekaPair::start(config).await.expect("two servers");
    let [a, b] = &pair.servers;
    let eureka = client(&[a, b]);
    let mut pair = Pair::start(&eureka, "peers").await;
    let id = format!("127.0.0.1:peers:{}", pair.server.address().port());
    replicated(&[a, b], &id).await;
    let fresh = fresh_with(1);
    let subscription = pair.subscription.clone();
    let n = pair
        .survives(async {
            a.kill();
            sleep(Duration::from_secs(5)).await;
            assert!(fresh(&subscription.snapshot()), "{:?}", subscription.snapshot());
            b.kill();
            sleep(lasts).await;
            let snapshot = subscription.snapshot();
            assert!(
                !snapshot.freshness().is_fresh() && snapshot.known().count() == 1,
                "{snapshot:?}"
            );
            b.restart().await.expect("it starts again");
        })
        .await;
    pair.sees("the server, fresh", fresh).await;
    a.restart().await.expect("it starts again");
    replicated(&[a, b], &id).await;
    assert!(matches!(pair.handle.state(), RegistrationState::Registered), "{:?}", pair.handle);
    n
}

/// Waits until all of them have the entry.
async fn replicated(servers: &[&real::Eureka], id: &str) {
    for server in servers {
        entry_that(server, "peers", id, |xml| !xml.is_empty()).await;
    }
}
