use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_sd_core::{ErrorKind, Freshness, Instancer, RegistrationState};
use tower_sd_testkit::{real, servers::required, wait::shows_that, wire::request};

use crate::support::{BOUND, LEASE, Pair, client, entry_that, post, query};

/// Empty after its start, and refusing reads for a while: the set stays, and the entry comes back.
#[tokio::test]
#[ignore = "needs eureka"]
async fn server_that_restarts_empty_loses_no_instance() {
    let config = real::EurekaConfig::quick(required("eureka"))
        .option("eureka.server.wait-time-in-ms-when-sync-empty", "10000")
        .option("eureka.instance.registry.default-open-for-traffic-count", "0");
    let server = real::Eureka::start(config).await.expect("a server");
    let eureka = client(&[&server]);
    // It has just started.
    let mut early = eureka.instancer(query("restart")).subscribe();
    let refused = |it: &tower_sd_core::Snapshot| it.freshness().error().is_some();
    let seen = shows_that(&mut early, "refused", BOUND, refused).await;
    let error = seen.freshness().error().expect("refused").clone();
    assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Unavailable, true), "{error}");
    assert!(error.to_string().contains("403"), "{error}");
    let mut pair = Pair::start(&eureka, "restart").await;
    let id = format!("127.0.0.1:restart:{}", pair.server.address().port());
    let subscription = pair.subscription.clone();
    let n = pair
        .survives(async {
            server.restart().await.expect("it starts again");
            let start = Instant::now();
            entry_that(&server, "restart", &id, |xml| xml.contains("UP")).await;
            println!("registered again {:?} after the server's start", start.elapsed());
            // One renewal, and the first requests of a JVM.
            assert!(start.elapsed() < LEASE / 3 + SLOW_START, "{:?}", start.elapsed());
            // Reads are refused for longer.
            sleep(Duration::from_secs(12)).await;
            assert_eq!(subscription.snapshot().known().count(), 1);
        })
        .await;
    let fresh = |it: &tower_sd_core::Snapshot| {
        it.freshness().is_fresh() && it.instances().len() == 1 && it.held().is_empty()
    };
    pair.sees("the server, fresh", fresh).await;
    assert!(matches!(pair.handle.state(), RegistrationState::Registered), "{:?}", pair.handle);
    println!("{n} requests, none failed");
}

const SLOW_START: Duration = Duration::from_secs(4);

/// A server whose self-preservation lists what is dead: connections show the truth.
#[tokio::test]
#[ignore = "needs eureka"]
async fn dead_instance_that_the_registry_keeps_fails_no_request() {
    let config = real::EurekaConfig::new(required("eureka"))
        .option("eureka.server.use-read-only-response-cache", "false")
        .option("eureka.server.response-cache-auto-expiration-in-seconds", "1")
        .option("eureka.server.eviction-interval-timer-in-ms", "500");
    let server = real::Eureka::start(config).await.expect("a server");
    let eureka = client(&[&server]);
    let mut pair = Pair::start(&eureka, "preserved").await;
    // Registered by a process that is gone: its address refuses connections.
    post(&server, "PRESERVED", "dead", "UP").await;
    pair.sees("both", |it| it.instances().len() == 2).await;
    let n = pair.survives(sleep(Duration::from_secs(5))).await;
    let snapshot = pair.subscription.snapshot();
    assert_eq!(snapshot.instances().len(), 2, "the server keeps it: {snapshot:?}");
    assert!(matches!(snapshot.freshness(), Freshness::Fresh));
    // It offers nothing for a conditional read.
    for target in ["/eureka/apps/PRESERVED", "/eureka/apps", "/eureka/apps/delta"] {
        let answer = request(server.address(), "GET", target, "").await.expect("a well server");
        let head = answer.head.to_lowercase();
        assert_eq!(answer.status, 200, "{head}");
        assert!(!head.contains("\netag:") && !head.contains("\nlast-modified:"), "{head}");
    }
    println!("{n} requests, none failed");
}
