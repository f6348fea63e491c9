//! `named` goes away and comes back.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_sd_core::{Freshness, Instancer, Snapshot};
use tower_sd_dns::{DnsConfig, Transport};
use tower_sd_testkit::wait::fresh_with;

use crate::scene::{SOON, follow, hasty, named, sees, sees_that, services, update};

/// The set stays, stale, and is fresh soon after the server is back; over UDP and over TCP.
async fn server_is_away_for(away: Duration, longest_pause: Duration) {
    for transport in [Transport::UdpFirst, Transport::TcpFirst] {
        let bind = named().await;
        update(
            &bind,
            "update add a.lab.test. 0 A 10.0.0.1
             update add _web._tcp.lab.test. 0 SRV 0 0 8001 a.lab.test.",
        )
        .await;
        let dns = DnsConfig::new([bind.address()]).transport(transport);
        let mut config = hasty();
        config.max_backoff = longest_pause;
        let instancer = follow(dns, services(), config);
        let mut subscription = instancer.subscribe();
        sees(&mut subscription, SOON, &["10.0.0.1:8001"]).await;
        bind.kill();
        let start = Instant::now();
        let stale = |it: &Snapshot| matches!(it.freshness(), Freshness::Stale { .. });
        sees_that(&mut subscription, SOON, stale).await;
        while start.elapsed() < away {
            let snapshot = subscription.snapshot();
            assert_eq!(snapshot.instances().len(), 1, "{snapshot:?}");
            assert!(stale(&snapshot) && snapshot.held().is_empty(), "{snapshot:?}");
            sleep(Duration::from_millis(100)).await;
        }
        bind.restart().await.expect("it starts again");
        sees_that(&mut subscription, longest_pause + SOON, fresh_with(1)).await;
    }
}

#[tokio::test]
#[ignore = "needs named: cargo xtask test"]
async fn server_that_is_away_for_a_moment_costs_no_instance() {
    server_is_away_for(Duration::from_secs(4), Duration::from_millis(500)).await;
}

mod slow {
    use super::*;

    /// With the pauses of every day, up to a minute long.
    #[tokio::test]
    #[ignore = "needs named: cargo xtask test --slow"]
    async fn server_that_is_away_for_a_minute_costs_no_instance() {
        server_is_away_for(Duration::from_secs(60), Duration::from_secs(60)).await;
    }
}
