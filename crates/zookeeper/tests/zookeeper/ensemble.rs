//! Three servers.

use std::time::Duration;

use tokio::time::Instant;
use tower_sd_core::{
    Instancer, ReadMode, ReadRequest, Registration, RegistrationHandle, Source, Subscription,
};
use tower_sd_testkit::{
    proxy::{Fault, Proxy},
    real::{ZooKeeperConfig as Server, ZooKeeperEnsemble},
    wait::{fresh_with, shows_that},
};
use tower_sd_zookeeper::{ZooKeeper, ZooKeeperConfig};

use crate::support::{
    holds, instance, newest, note, oldest,
    operator::{CreateMode::Persistent, Operator},
    patient,
};

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

/// It closes the connections of its clients; the majority has the session.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn session_leaves_a_member_without_the_majority() {
    let ensemble = ZooKeeperEnsemble::start_linked(Server::new(oldest()), 3).await;
    let ensemble = ensemble.expect("the ensemble starts");
    let mut proxies = Vec::new();
    for member in &ensemble.members {
        proxies.push(Proxy::start(member.address()).await.expect("a proxy"));
    }
    // The session begins at the first.
    for others in &proxies[1..] {
        others.set(Fault::Refuse).await;
    }
    let servers = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
    let (zookeeper, handle, mut subscription) = registered(servers).await;
    for others in &proxies[1..] {
        others.set(Fault::None).await;
    }
    assert_eq!(proxies[0].n_open(), 1);
    for link in &ensemble.links {
        link.set(Fault::BlackHole).await;
    }
    let start = Instant::now();
    let late = Registration::new("s", instance("b", 2)).retry_in_background();
    let _late = zookeeper.register(late).await.expect("in the background");
    shows_that(&mut subscription, "a and b", BOUND, fresh_with(2)).await;
    note(&format!("a write succeeds {:?} after the partition", start.elapsed()));
    holds("the member has closed it", BOUND, async || proxies[0].n_open() == 0).await;
    for link in &ensemble.links {
        link.set(Fault::None).await;
    }
    let joined =
        async || ensemble.members[0].command("srvr").await.is_ok_and(|it| it.contains("Mode:"));
    holds("the member is back", BOUND, joined).await;
    shows_that(&mut subscription, "a and b", BOUND, fresh_with(2)).await;
    assert_eq!(handle.stats().lost, 0, "{handle:?}");
}

/// The member of the client gets the writes of others later.
#[tokio::test]
#[ignore = "needs a real ZooKeeper"]
async fn confirming_read_is_not_behind() {
    let ensemble = ZooKeeperEnsemble::start_linked(Server::new(oldest()), 3).await;
    let ensemble = ensemble.expect("the ensemble starts");
    let behind = patient(ensemble.members[0].address());
    let leader = ensemble.leader().await.expect("there is a leader");
    let mut operator = Operator::connect(leader.address()).await;
    operator.create("/app", b"", Persistent).await;
    let mut source = behind.key_value("app/");
    let mut read = async |mode| {
        let read = source.read(ReadRequest::new(mode)).await.expect("it answers");
        read.entries().expect("a set").len()
    };
    read(ReadMode::Confirm).await;
    for link in &ensemble.links {
        link.set(Fault::Delay(Duration::from_millis(300))).await;
    }
    let mut n_behind = 0;
    for n in 1..=5 {
        operator.create_in(&format!("/app/{n}"), b"1", Persistent).await;
        n_behind += usize::from(read(ReadMode::Full).await < n);
        assert_eq!(read(ReadMode::Confirm).await, n);
    }
    assert!(n_behind > 0, "no read was behind: this shows nothing");
}

const BOUND: Duration = Duration::from_secs(60);
