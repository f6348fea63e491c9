//! Three servers.

use std::time::Duration;

use tokio::time::Instant;
use tower_sd_core::{Instancer, Registration, RegistrationHandle, Subscription};
use tower_sd_testkit::{
    proxy::{Fault, Proxy},
    real::{ZooKeeperConfig as Server, ZooKeeperEnsemble},
    wait::{fresh_with, shows_that},
};
use tower_sd_zookeeper::{ZooKeeper, ZooKeeperConfig};

use crate::support::{instance, newest, note};

/// A client with a session of 10 s, its registration, and what follows that.
async fn registered(servers: Vec<String>) -> (ZooKeeper, RegistrationHandle, Subscription) {
    let config = ZooKeeperConfig::new(servers).session_timeout(Duration::from_secs(10));
    let zookeeper = ZooKeeper::new(config).expect("good settings");
    let handle = zookeeper.register(Registration::new("s", instance("a", 1))).await;
    let handle = handle.expect("it registers");
    let mut subscription = zookeeper.instancer("s").subscribe();
    shows_that(&mut subscription, "a", BOUND, fresh_with(1)).await;
    (zookeeper, handle, subscription)
}

/// The session goes on at another server: nothing is registered again.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn session_survives_the_death_of_the_leader() {
    let ensemble = ZooKeeperEnsemble::start(Server::new(newest()), 3).await;
    let ensemble = ensemble.expect("the ensemble starts");
    let (zookeeper, handle, mut subscription) = registered(ensemble.addresses()).await;
    let leader = ensemble.leader().await.expect("there is a leader");
    leader.kill();
    let start = Instant::now();
    let late = Registration::new("s", instance("b", 2)).retry_in_background();
    let _late = zookeeper.register(late).await.expect("in the background");
    shows_that(&mut subscription, "a and b", BOUND, fresh_with(2)).await;
    note(&format!("a write succeeds {:?} after the leader's death", start.elapsed()));
    assert_eq!(handle.stats().lost, 0, "{handle:?}");
    // All servers, one after the other.
    leader.restart().await.expect("it starts again");
    for member in &ensemble.members {
        member.restart().await.expect("it starts again");
        shows_that(&mut subscription, "a and b", BOUND, fresh_with(2)).await;
    }
    assert_eq!(handle.stats().lost, 0, "{handle:?}");
}

/// Clients see it close every connection; the majority has the session.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn session_leaves_a_member_without_the_majority() {
    let ensemble = ZooKeeperEnsemble::start(Server::new(newest()), 3).await;
    let ensemble = ensemble.expect("the ensemble starts");
    let mut proxies = Vec::new();
    for member in &ensemble.members {
        proxies.push(Proxy::start(member.address()).await.expect("a proxy"));
    }
    let servers = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
    let (zookeeper, handle, mut subscription) = registered(servers).await;
    // Whichever has the session, the leader or not.
    let alone = proxies.iter().position(|proxy| proxy.n_open() > 0).expect("a connection");
    ensemble.members[alone].suspend().expect("it runs");
    proxies[alone].set(Fault::Cut).await;
    let late = Registration::new("s", instance("b", 2)).retry_in_background();
    let _late = zookeeper.register(late).await.expect("in the background");
    shows_that(&mut subscription, "a and b", BOUND, fresh_with(2)).await;
    assert_eq!(proxies[alone].n_open(), 0);
    ensemble.members[alone].resume().expect("it runs");
    proxies[alone].set(Fault::None).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    shows_that(&mut subscription, "a and b", BOUND, fresh_with(2)).await;
    assert_eq!(handle.stats().lost, 0, "{handle:?}");
}

const BOUND: Duration = Duration::from_secs(60);
