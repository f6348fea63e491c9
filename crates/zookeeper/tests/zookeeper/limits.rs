//! Sizes.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::{
    join,
    time::{Instant, sleep, timeout},
};
use tower_sd_core::{
    ErrorKind, FollowConfig, Instance, Instancer, Registration, RegistryConfig, Snapshot,
};
use tower_sd_testkit::{
    proxy::{Fault, Proxy},
    real,
    usage::{cpu_ms, resident_kib},
    wait::{fresh_with, shows_that},
};
use tower_sd_zookeeper::{GoKit, ZooKeeper, ZooKeeperConfig};

use crate::support::{
    TTL, ZooKeeperFixture, holds, instance, newest, note, on_every_zookeeper,
    operator::{CreateMode::Persistent, Operator},
    patient_config,
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
        // It needs none.
        assert!(proxy.n_accepted() <= 1, "{}", proxy.n_accepted());
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
    sleep(TTL).await;
    let n_connections = proxy.n_accepted();
    assert!(n_connections <= 4, "{n_connections} connections");
    sleep(TTL * 4).await;
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
    let bound = Duration::from_secs(60);
    let mut follow = FollowConfig::default();
    // Half of it, on a busy machine.
    follow.read_timeout = bound;
    let registry = RegistryConfig::default().follow(follow);
    let config = patient_config(fixture.server.address()).layout(GoKit::default());
    let zookeeper = ZooKeeper::new(config.registry(registry)).expect("good settings");
    let mut subscription = zookeeper.instancer("s").subscribe();
    shows_that(&mut subscription, "20 000", bound, fresh_with(20_000)).await;
    note(&format!("20 000 children are read in {:?}", start.elapsed()));
    let small = fixture.config().max_reply(64 << 10);
    let mut refused = ZooKeeper::new(small).expect("good settings").instancer("s").subscribe();
    shows_that(&mut refused, "the limit", bound, |it| {
        it.freshness().error().is_some_and(|it| it.to_string().contains("max_reply"))
    })
    .await;
}

/// Whether its data can be read or not.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn node_of_two_mebibytes_is_left_out_and_counted() {
    let config = real::ZooKeeperConfig::new(newest()).property("jute.maxbuffer=4000000");
    let server = real::ZooKeeper::start(config).await.expect("it starts");
    let mut operator = Operator::connect(server.address()).await;
    operator.create("/services/s/small", br#"{"address":"h","port":1}"#, Persistent).await;
    operator.create("/services/s/large", &vec![b'x'; 2 << 20], Persistent).await;
    for max_reply in [16 << 20, 1 << 20] {
        let config = patient_config(server.address()).max_reply(max_reply);
        let zookeeper = ZooKeeper::new(config).expect("good settings");
        let mut subscription = zookeeper.instancer("s").subscribe();
        let bound = Duration::from_secs(60);
        shows_that(&mut subscription, "the small one", bound, fresh_with(1)).await;
        let stats = subscription.stats();
        assert_eq!((stats.malformed, stats.errors), (1, 0), "{max_reply}: {stats:?}");
    }
}

/// A refresh is all or nothing: the connection breaks while children are read.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn broken_connection_publishes_no_part_of_a_set() {
    let fixture = ZooKeeperFixture::start(newest()).await.expect("it starts");
    let mut operator = fixture.operator().await;
    operator.create("/services/s", b"", Persistent).await;
    for n in 0..2000_u32 {
        let data = format!("10.0.{}.{}:80", n >> 8, n & 255);
        operator.create_in(&format!("/services/s/{n}"), data.as_bytes(), Persistent).await;
    }
    let proxy = Proxy::start(fixture.server.address()).await.expect("a proxy");
    let config = ZooKeeperConfig::new([proxy.address().to_string()]).session_timeout(TTL * 5);
    let config = config.layout(GoKit::default());
    let mut n_cut = 0;
    for round in 0..30 {
        let zookeeper = ZooKeeper::new(config.clone()).expect("good settings");
        let mut subscription = zookeeper.instancer("s").subscribe();
        let n_known = |it: &Snapshot| (it.known().count(), it.freshness().is_fresh());
        let reads = async {
            let mut seen = Vec::new();
            while seen.last() != Some(&(2000, true)) {
                let snapshot = subscription.changed().await.expect("the loop lives");
                seen.push(n_known(&snapshot));
            }
            seen
        };
        let breaks = async {
            sleep(Duration::from_micros(fastrand::u64(0..100_000))).await;
            proxy.set(Fault::Reset).await;
            proxy.set(Fault::None).await;
        };
        let bound = Duration::from_secs(60);
        let (seen, ()) = timeout(bound, async { join!(reads, breaks) }).await.expect("in time");
        let is_whole = |(n, _): &(usize, bool)| matches!(n, 0 | 2000);
        assert!(seen.iter().all(is_whole), "round {round}: {seen:?}");
        n_cut += usize::from(seen.len() > 1);
    }
    note(&format!("{n_cut} of 30 first reads were cut"));
    assert!(n_cut >= 3, "only {n_cut} reads were cut");
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
        let config = ZooKeeperConfig::new([proxy.address().to_string()]).session_timeout(TTL * 5);
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
    let (before, start) = (resident_kib().expect("Linux"), Instant::now());
    let instancers: Vec<_> = (0..1000).map(|n| zookeeper.instancer(format!("many-{n}"))).collect();
    for instancer in &instancers {
        let mut subscription = instancer.subscribe();
        shows_that(&mut subscription, "10", Duration::from_secs(60), fresh_with(10)).await;
    }
    let (elapsed, kib) = (start.elapsed(), resident_kib().expect("Linux").saturating_sub(before));
    assert_eq!(proxy.n_accepted(), 1, "one session");
    let watches = fixture.server.command("wchs").await.expect("it runs");
    let busy = cpu_ms().expect("Linux");
    sleep(Duration::from_secs(2)).await;
    let busy = cpu_ms().expect("Linux") - busy;
    note(&format!(
        "1000 services of 10: {elapsed:?}, {kib} KiB; {busy} ms of CPU in 2 s; {watches}"
    ));
    assert!(kib < 64 << 10, "{kib} KiB");
    // It counts those of data.
    assert!(watches.contains("Total watches:10000"), "{watches}");
    let late = Instance::new("127.0.0.1", 9).with_id("late");
    let _late = zookeeper.register(Registration::new("many-999", late)).await.expect("registers");
    let mut last = instancers[999].subscribe();
    shows_that(&mut last, "11", Duration::from_secs(10), fresh_with(11)).await;
}
