//! The instancer on a real `named`, whose zone `nsupdate` changes.

use std::{fmt::Write, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tower_sd_core::{FollowConfig, Freshness, Instancer, PublisherConfig, Snapshot, Subscription};
use tower_sd_dns::{DnsClient, DnsConfig, DnsInstancer, Family, Query};
use tower_sd_testkit::{real::Bind, servers::required};

async fn named() -> Bind {
    Bind::start(&required("named")).await.expect("named starts")
}

/// With these bounds of the time between lookups.
fn follow(bind: &Bind, query: Query, min: Duration, max: Duration) -> DnsInstancer {
    let dns = DnsClient::new(DnsConfig::new([bind.address()]));
    let mut follow = FollowConfig::new("dns");
    (follow.min_refresh, follow.max_refresh) = (min, max);
    DnsInstancer::with_config(&dns, query, PublisherConfig::new("dns", "web"), follow)
}

fn services() -> Query {
    Query::srv("_web._tcp.lab.test").expect("a name")
}

async fn update(bind: &Bind, lines: &str) {
    bind.update(lines).await.expect("named takes an update");
}

async fn sees(subscription: &mut Subscription, bound: Duration, wanted: &[&str]) -> Snapshot {
    let wait = async {
        loop {
            let snapshot = subscription.snapshot();
            let mut shown: Vec<_> = snapshot.instances().iter().map(ToString::to_string).collect();
            shown.sort();
            if snapshot.freshness().is_synced() && shown == wanted {
                return snapshot;
            }
            subscription.changed().await.expect("the loop lives");
        }
    };
    let seen = timeout(bound, wait).await;
    seen.unwrap_or_else(|_| panic!("not {wanted:?}: {:#?}", subscription.snapshot()))
}

/// A record is seen within clamp(TTL, min, max) + 10 % + 1 s, and gone within that and the hold, which a loss of less than
/// half does not have.
#[tokio::test]
#[ignore = "needs named: cargo xtask test"]
async fn change_is_seen_within_the_ttl() {
    let bind = named().await;
    let ttl = Duration::from_secs(2);
    update(
        &bind,
        "update add a.lab.test. 60 A 10.0.0.1
         update add _web._tcp.lab.test. 2 SRV 0 0 8001 a.lab.test.
         update add _web._tcp.lab.test. 2 SRV 0 0 8002 a.lab.test.",
    )
    .await;
    let instancer = follow(&bind, services(), Duration::from_millis(100), Duration::from_secs(60));
    let mut subscription = instancer.subscribe();
    let two = ["10.0.0.1:8001", "10.0.0.1:8002"];
    sees(&mut subscription, Duration::from_secs(5), &two).await;
    let bound = ttl.mul_f64(1.1) + Duration::from_secs(1);

    update(&bind, "update add _web._tcp.lab.test. 2 SRV 0 0 8003 a.lab.test.").await;
    let three = ["10.0.0.1:8001", "10.0.0.1:8002", "10.0.0.1:8003"];
    sees(&mut subscription, bound, &three).await;

    update(&bind, "update delete _web._tcp.lab.test. SRV 0 0 8001 a.lab.test.").await;
    let snapshot = sees(&mut subscription, bound, &["10.0.0.1:8002", "10.0.0.1:8003"]).await;
    assert!(snapshot.held().is_empty(), "{snapshot:?}");
}

/// T58, with the default guard: the last one is held for two minutes, and picked up when it is back.
#[tokio::test]
#[ignore = "needs named: cargo xtask test"]
async fn last_record_that_leaves_is_held() {
    let bind = named().await;
    update(
        &bind,
        "update add a.lab.test. 0 A 10.0.0.1
         update add _web._tcp.lab.test. 0 SRV 0 0 8001 a.lab.test.",
    )
    .await;
    let instancer = follow(&bind, services(), Duration::from_millis(100), Duration::from_secs(60));
    let mut subscription = instancer.subscribe();
    sees(&mut subscription, Duration::from_secs(5), &["10.0.0.1:8001"]).await;
    update(&bind, "update delete _web._tcp.lab.test. SRV").await;
    let snapshot = sees(&mut subscription, Duration::from_secs(3), &[]).await;
    assert_eq!(snapshot.held().len(), 1, "{snapshot:?}");
    assert!(snapshot.freshness().is_fresh(), "{snapshot:?}");
    update(&bind, "update add _web._tcp.lab.test. 0 SRV 0 0 8001 a.lab.test.").await;
    let snapshot = sees(&mut subscription, Duration::from_secs(3), &["10.0.0.1:8001"]).await;
    assert!(snapshot.held().is_empty(), "{snapshot:?}");
}

/// The form without SRV, and D5: an alias on the way.
#[tokio::test]
#[ignore = "needs named: cargo xtask test"]
async fn addresses_with_a_fixed_port_are_followed() {
    let bind = named().await;
    update(
        &bind,
        "update add alias.lab.test. 0 CNAME host.lab.test.
         update add host.lab.test. 0 A 10.0.0.1
         update add host.lab.test. 0 AAAA fd00::1",
    )
    .await;
    let (min, max) = (Duration::from_millis(100), Duration::from_secs(60));
    let host = Query::host("alias.lab.test", 8080).expect("a name");
    let first = follow(&bind, host.clone(), min, max);
    let both = follow(&bind, host.family(Family::Both), min, max);
    let (mut first, mut both) = (first.subscribe(), both.subscribe());
    let bound = Duration::from_secs(5);
    sees(&mut first, bound, &["10.0.0.1:8080"]).await;
    sees(&mut both, bound, &["10.0.0.1:8080", "[fd00::1]:8080"]).await;
    update(&bind, "update add host.lab.test. 0 A 10.0.0.2").await;
    sees(&mut first, bound, &["10.0.0.1:8080", "10.0.0.2:8080"]).await;
    sees(&mut both, bound, &["10.0.0.1:8080", "10.0.0.2:8080", "[fd00::1]:8080"]).await;
}

/// 300 records do not fit in a datagram.
#[tokio::test]
#[ignore = "needs named: cargo xtask test"]
async fn large_answer_comes_over_tcp() {
    let bind = named().await;
    let mut lines = "update add a.lab.test. 60 A 10.0.0.1\n".to_owned();
    for port in 8001..=8300 {
        writeln!(lines, "update add _web._tcp.lab.test. 60 SRV 0 0 {port} a.lab.test.")
            .expect("a String");
    }
    update(&bind, &lines).await;
    let instancer = follow(&bind, services(), Duration::from_secs(5), Duration::from_secs(60));
    let snapshot = instancer.subscribe().ready(Duration::from_secs(5)).await;
    assert_eq!(snapshot.expect("it answers").instances().len(), 300);
}

/// Of a thousand targets some hundred addresses do not fit in the answer: they are looked up, 16 at a time.
#[tokio::test]
#[ignore = "needs named: cargo xtask test"]
async fn addresses_that_do_not_come_along_are_looked_up() {
    let bind = named().await;
    for hundred in 0..10 {
        let mut lines = String::new();
        for n in 1..=100 {
            let ip = format!("10.0.{hundred}.{n}");
            let target = format!("i{hundred}{n:03}.web.lab.test.");
            let srv = format!("update add _web._tcp.lab.test. 60 SRV 0 0 8001 {target}");
            writeln!(lines, "{srv}\nupdate add {target} 60 A {ip}").expect("a String");
        }
        update(&bind, &lines).await;
    }
    let instancer = follow(&bind, services(), Duration::from_secs(5), Duration::from_secs(60));
    let snapshot = instancer.subscribe().ready(Duration::from_secs(5)).await;
    assert_eq!(snapshot.expect("it answers").instances().len(), 1000);
}

mod slow {
    use super::*;

    /// `named` is away for a minute: the set stays, stale, and is fresh when it is back.
    #[tokio::test]
    #[ignore = "needs named: cargo xtask test --slow"]
    async fn server_that_is_away_for_a_minute_costs_nobody() {
        let bind = named().await;
        update(
            &bind,
            "update add a.lab.test. 0 A 10.0.0.1
             update add _web._tcp.lab.test. 0 SRV 0 0 8001 a.lab.test.",
        )
        .await;
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(60));
        let instancer = follow(&bind, services(), min, max);
        let mut subscription = instancer.subscribe();
        sees(&mut subscription, Duration::from_secs(5), &["10.0.0.1:8001"]).await;
        bind.kill();
        let start = Instant::now();
        sleep(Duration::from_secs(5)).await;
        while start.elapsed() < Duration::from_secs(60) {
            let snapshot = subscription.snapshot();
            assert_eq!(snapshot.instances().len(), 1, "{snapshot:?}");
            assert!(matches!(snapshot.freshness(), Freshness::Stale { .. }), "{snapshot:?}");
            sleep(Duration::from_millis(100)).await;
        }
        bind.restart().await.expect("it starts again");
        let fresh = async {
            while !subscription.snapshot().freshness().is_fresh() {
                subscription.changed().await.expect("the loop lives");
            }
        };
        // The longest pause between two attempts, and what they take.
        timeout(Duration::from_secs(70), fresh).await.expect("it is fresh again");
    }
}
