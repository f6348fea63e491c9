//! Sizes.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use tower_sd_core::{ErrorKind, Instance, Instancer, Registration};
use tower_sd_testkit::{proxy::Proxy, real, wait::shows_that};
use tower_sd_zookeeper::{GoKit, ZooKeeper, ZooKeeperConfig};

use crate::support::{
    TTL, ZooKeeperFixture, fresh_with, holds, instance, newest, note, on_every_zookeeper,
    operator::{CreateMode::Persistent, Operator},
};

#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn data_above_the_limit_is_refused_without_a_reconnect() {
    on_every_zookeeper(async |fixture| {
        let proxy = Proxy::start(fixture.server.address()).await.expect("a proxy");
        let config = ZooKeeperConfig::new([proxy.address().to_string()]).session_timeout(TTL * 5);
        let zookeeper = ZooKeeper::new(config).expect("good settings");
        let large = instance("a", 1).with_metadata("large", "x".repeat(2 << 20));
        let error = zookeeper.register(Registration::new("s", large)).await;
        let error = error.expect_err("too large");
        assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Config, false), "{error:?}");
        assert!(error.to_string().contains("jute.maxbuffer"), "{error}");
        assert_eq!(proxy.n_accepted(), 1);
    })
    .await;
}

/// The server's own limit is lower than ours.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn lower_limit_of_the_server_is_named() {
    let config = real::ZooKeeperConfig::new(newest()).property("jute.maxbuffer=100000");
    let server = real::ZooKeeper::start(config).await.expect("it starts");
    let config = ZooKeeperConfig::new([server.address().to_string()]).session_timeout(TTL);
    let zookeeper = ZooKeeper::new(config).expect("good settings");
    let large = instance("a", 1).with_metadata("large", "x".repeat(200_000));
    let error = zookeeper.register(Registration::new("s", large)).await;
    let error = error.expect_err("the server closes the connection");
    assert!(format!("{}", error.chain()).contains("jute.maxbuffer"), "{}", error.chain());
}

/// The connection is everyone's: data that end it are not written again and again.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn update_above_the_limit_of_the_server_is_given_up() {
    let config = real::ZooKeeperConfig::new(newest()).property("jute.maxbuffer=100000");
    let server = real::ZooKeeper::start(config).await.expect("it starts");
    let proxy = Proxy::start(server.address()).await.expect("a proxy");
    let config = ZooKeeperConfig::new([proxy.address().to_string()]).session_timeout(TTL * 2);
    let zookeeper = ZooKeeper::new(config).expect("good settings");
    let handle = zookeeper.register(Registration::new("s", instance("a", 1))).await;
    let handle = handle.expect("it registers");
    let large = "x".repeat(200_000);
    let updated = handle.update(move |it| it.with_metadata("large", large)).await;
    updated.expect_err("too large");
    let bound = Duration::from_secs(20);
    holds("a permanent error", bound, async || {
        let error = handle.last_error();
        error.is_some_and(|it| it.kind() == ErrorKind::Config && !it.is_transient())
    })
    .await;
    // The last one that was ended is made again.
    tokio::time::sleep(TTL).await;
    let n_connections = proxy.n_accepted();
    assert!(n_connections <= 4, "{n_connections} connections");
    tokio::time::sleep(TTL * 4).await;
    assert_eq!(proxy.n_accepted(), n_connections);
    let mut subscription = zookeeper.instancer("s").subscribe();
    shows_that(&mut subscription, "a", bound, fresh_with(1)).await;
    handle.update(|it| it.with_weight(3)).await.expect("a small one is accepted");
}

#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn twenty_thousand_children_are_read() {
    let fixture = ZooKeeperFixture::start(newest()).await.expect("it starts");
    let operators = (0..8_u32).map(async |part| {
        let mut operator = Operator::connect(fixture.server.address()).await;
        for n in (0..20_000_u32).filter(|n| n % 8 == part) {
            let path = format!("/services/s/an-instance-with-a-longer-name-{n}");
            let data = format!("10.{}.{}.{}:80", n >> 16, n >> 8 & 255, n & 255);
            operator.create_in(&path, data.as_bytes(), Persistent).await;
        }
    });
    fixture.operator().await.create("/services/s", b"", Persistent).await;
    join_all(operators).await;
    let start = Instant::now();
    let zookeeper =
        ZooKeeper::new(fixture.config().layout(GoKit::default())).expect("good settings");
    let mut subscription = zookeeper.instancer("s").subscribe();
    let bound = Duration::from_secs(60);
    shows_that(&mut subscription, "20 000", bound, fresh_with(20_000)).await;
    note(&format!("20 000 children are read in {:?}", start.elapsed()));
    let small = fixture.config().max_reply(64 << 10);
    let mut refused = ZooKeeper::new(small).expect("good settings").instancer("s").subscribe();
    shows_that(&mut refused, "the limit", bound, |it| {
        it.freshness().error().is_some_and(|it| it.to_string().contains("max_reply"))
    })
    .await;
}

/// An answer above the limit is an error of its follower, or its child, and of no other.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn answer_above_the_limit_ends_no_connection() {
    on_every_zookeeper(async |fixture| {
        let mut operator = fixture.operator().await;
        operator.create("/services/s/small", br#"{"address":"h","port":1}"#, Persistent).await;
        operator.create("/services/s/large", &[b'x'; 200_000], Persistent).await;
        operator.create("/services/many", b"", Persistent).await;
        for n in 0..400 {
            let path = format!("/services/many/{}-{n}", "x".repeat(200));
            operator.create_in(&path, b"", Persistent).await;
        }
        let proxy = Proxy::start(fixture.server.address()).await.expect("a proxy");
        let config = ZooKeeperConfig::new([proxy.address().to_string()]).session_timeout(TTL);
        let zookeeper = ZooKeeper::new(config.max_reply(64 << 10)).expect("good settings");
        let bound = Duration::from_secs(20);
        let mut subscription = zookeeper.instancer("s").subscribe();
        shows_that(&mut subscription, "the small one", bound, fresh_with(1)).await;
        assert_eq!(subscription.stats().malformed, 1, "{:?}", subscription.stats());
        let mut many = zookeeper.instancer("many").subscribe();
        shows_that(&mut many, "the limit", bound, |it| {
            it.freshness().error().is_some_and(|it| it.to_string().contains("max_reply"))
        })
        .await;
        operator.set("/services/s/large", br#"{"address":"h","port":2}"#).await;
        shows_that(&mut subscription, "both", bound, fresh_with(2)).await;
        assert_eq!((proxy.n_accepted(), subscription.stats().errors), (1, 0));
    })
    .await;
}

/// 1 000 services of 10 instances.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn thousand_services_share_one_session() {
    let fixture = ZooKeeperFixture::start(newest()).await.expect("it starts");
    let operators = (0..8_u16).map(async |part| {
        let mut operator = Operator::connect(fixture.server.address()).await;
        for n in (0..1000_u16).filter(|n| n % 8 == part) {
            operator.create(&format!("/services/many-{n}"), b"", Persistent).await;
            for m in 0..10_u16 {
                let data = format!("10.0.{m}.1:{}", n + 1);
                let path = format!("/services/many-{n}/{m}");
                operator.create_in(&path, data.as_bytes(), Persistent).await;
            }
        }
    });
    join_all(operators).await;
    let proxy = Proxy::start(fixture.server.address()).await.expect("a proxy");
    let config = ZooKeeperConfig::new([proxy.address().to_string()]).session_timeout(TTL * 5);
    let zookeeper = ZooKeeper::new(config.layout(GoKit::default())).expect("good settings");
    let (before, start) = (resident_kib(), Instant::now());
    let instancers: Vec<_> = (0..1000).map(|n| zookeeper.instancer(format!("many-{n}"))).collect();
    for instancer in &instancers {
        let mut subscription = instancer.subscribe();
        shows_that(&mut subscription, "10", Duration::from_secs(60), fresh_with(10)).await;
    }
    let (elapsed, kib) = (start.elapsed(), resident_kib().saturating_sub(before));
    assert_eq!(proxy.n_accepted(), 1, "one session");
    let watches = fixture.server.command("wchs").await.expect("it runs");
    note(&format!("1000 services of 10: {elapsed:?}, {kib} KiB; {watches}"));
    // It counts those of data.
    assert!(watches.contains("Total watches:10000"), "{watches}");
    let late = Instance::new("127.0.0.1", 9).with_id("late");
    let _late = zookeeper.register(Registration::new("many-999", late)).await.expect("registers");
    let mut last = instancers[999].subscribe();
    shows_that(&mut last, "11", Duration::from_secs(10), fresh_with(11)).await;
}

/// What this process has in memory.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).expect("a number of kB")
}
