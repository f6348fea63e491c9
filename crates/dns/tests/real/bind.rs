//! A zone's records, and their instances.

use std::{fmt::Write, time::Duration};

use tokio::time::Instant;
use tower_sd_core::{Instancer, LossGuard, LossPolicy, RegistryConfig, Snapshot};
use tower_sd_dns::{Dns, DnsConfig, Family, Query};

use crate::scene::{SOON, following, hasty, named, sees, sees_that, services, update};

/// A record is seen within clamp(TTL, min, max) + 10 % + 1 s, and gone within that and the hold,
/// which a loss of less than half does not have.
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
    let instancer = following(&bind, services());
    let mut subscription = instancer.subscribe();
    let two = ["10.0.0.1:8001", "10.0.0.1:8002"];
    sees(&mut subscription, SOON, &two).await;
    let bound = ttl.mul_f64(1.1) + Duration::from_secs(1);

    update(&bind, "update add _web._tcp.lab.test. 2 SRV 0 0 8003 a.lab.test.").await;
    let three = ["10.0.0.1:8001", "10.0.0.1:8002", "10.0.0.1:8003"];
    sees(&mut subscription, bound, &three).await;

    update(&bind, "update delete _web._tcp.lab.test. SRV 0 0 8001 a.lab.test.").await;
    let snapshot = sees(&mut subscription, bound, &["10.0.0.1:8002", "10.0.0.1:8003"]).await;
    assert!(snapshot.held().is_empty(), "{snapshot:?}");
}

/// With the default guard: the last one is held for two minutes, and listed again when it is back.
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
    let instancer = following(&bind, services());
    let mut subscription = instancer.subscribe();
    sees(&mut subscription, SOON, &["10.0.0.1:8001"]).await;
    update(&bind, "update delete _web._tcp.lab.test. SRV").await;
    let snapshot = sees(&mut subscription, Duration::from_secs(3), &[]).await;
    assert_eq!(snapshot.held().len(), 1, "{snapshot:?}");
    assert!(snapshot.freshness().is_fresh(), "{snapshot:?}");
    update(&bind, "update add _web._tcp.lab.test. 0 SRV 0 0 8001 a.lab.test.").await;
    let snapshot = sees(&mut subscription, Duration::from_secs(3), &["10.0.0.1:8001"]).await;
    assert!(snapshot.held().is_empty(), "{snapshot:?}");
}

/// Within its TTL, the hold, and the read that confirms it.
#[tokio::test]
#[ignore = "needs named: cargo xtask test"]
async fn last_record_that_leaves_is_gone_after_the_hold() {
    const HOLD: Duration = Duration::from_secs(2);
    let bind = named().await;
    update(
        &bind,
        "update add a.lab.test. 60 A 10.0.0.1
         update add _web._tcp.lab.test. 1 SRV 0 0 8001 a.lab.test.",
    )
    .await;
    let mut guard = LossGuard::default();
    (guard.hold, guard.hold_empty) = (HOLD, HOLD);
    let registry = RegistryConfig::default().loss(LossPolicy::Guard(guard)).follow(hasty());
    let dns = Dns::new(DnsConfig::new([bind.address()]).registry(registry));
    let instancer = dns.instancer(services());
    let mut subscription = instancer.subscribe();
    sees(&mut subscription, SOON, &["10.0.0.1:8001"]).await;
    update(&bind, "update delete _web._tcp.lab.test. SRV").await;
    let within_ttl = Duration::from_millis(1100) + Duration::from_secs(1);
    sees_that(&mut subscription, within_ttl, |it| it.held().len() == 1).await;
    let start = Instant::now();
    let gone = |it: &Snapshot| it.held().is_empty() && it.instances().is_empty();
    // The confirming read comes within a second.
    sees_that(&mut subscription, HOLD + Duration::from_secs(3), gone).await;
    assert!(start.elapsed() > HOLD.mul_f64(0.9), "{:?}", start.elapsed());
}

/// The form without SRV, with an alias on the way.
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
    let host = Query::host("alias.lab.test", 8080).expect("a name");
    let first = following(&bind, host.clone());
    let both = following(&bind, host.family(Family::Both));
    let (mut first, mut both) = (first.subscribe(), both.subscribe());
    sees(&mut first, SOON, &["10.0.0.1:8080"]).await;
    sees(&mut both, SOON, &["10.0.0.1:8080", "[fd00::1]:8080"]).await;
    update(&bind, "update add host.lab.test. 0 A 10.0.0.2").await;
    sees(&mut first, SOON, &["10.0.0.1:8080", "10.0.0.2:8080"]).await;
    sees(&mut both, SOON, &["10.0.0.1:8080", "10.0.0.2:8080", "[fd00::1]:8080"]).await;
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
    let instancer = following(&bind, services());
    let snapshot = instancer.subscribe().ready(SOON * 6).await;
    assert_eq!(snapshot.expect("it answers").instances().len(), 300);
}

/// Of a thousand targets some hundred addresses do not fit in the answer: they are looked up, 16 at
/// a time.
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
    let instancer = following(&bind, services());
    let snapshot = instancer.subscribe().ready(SOON * 6).await;
    assert_eq!(snapshot.expect("it answers").instances().len(), 1000);
}
