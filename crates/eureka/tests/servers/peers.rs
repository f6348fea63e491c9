use std::time::Duration;

use tokio::time::sleep;
use tower_sd_core::{RegistrationState, Snapshot};
use tower_sd_testkit::{real, servers::required};

use crate::support::{Pair, client, entry_that};

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
}

async fn outage(lasts: Duration) -> usize {
    let config = real::EurekaConfig::quick(required("eureka"));
    let [a, b] = real::Eureka::pair(config).await.expect("two servers");
    let eureka = client(&[&a, &b]);
    let mut pair = Pair::start(&eureka, "peers").await;
    let id = format!("127.0.0.1:peers:{}", pair.server.address().port());
    replicated(&[&a, &b], &id).await;
    let fresh = |it: &Snapshot| it.freshness().is_fresh() && it.instances().len() == 1;
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
    replicated(&[&a, &b], &id).await;
    assert!(matches!(pair.handle.state(), RegistrationState::Registered), "{:?}", pair.handle);
    n
}

/// Waits until all of them have the entry.
async fn replicated(servers: &[&real::Eureka], id: &str) {
    for server in servers {
        entry_that(server, "peers", id, |xml| !xml.is_empty()).await;
    }
}
