//! ZooKeeper's servers lose their leader, a member, their data.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tower_sd::retry::RetryPolicy;
use tower_sd_testkit::{proxy::Fault, real, servers::required};

use crate::{
    client::{Client, Protocol},
    fleet::Fleet,
    load::Load,
    operator::Operator,
};

/// Does one after the other to three servers under load, and fails when a request has failed.
pub(crate) async fn tell() {
    let config = real::ZooKeeperConfig::new(required("zookeeper"));
    let ensemble =
        real::ZooKeeperEnsemble::start_linked(config, 3).await.expect("the ensemble starts");
    let url = format!("zookeeper://{}?session-timeout=6s", ensemble.addresses().join(","));
    let mut fleet = Fleet::start(&url, Protocol::Http).await;
    let registry = tower_sd::open(&url).expect("a URL");
    let instancer = registry.instancer(Protocol::Http.service()).expect("a name");
    let client = Client::new(Protocol::Http, &instancer, RetryPolicy::new()).await;
    let load = Load::start(200, move |n| client.clone().add(n));

    let leader = leader_of(&ensemble).await;
    leader.kill();
    sleep(OUTAGE).await;
    leader_of(&ensemble).await;
    fleet.restart(0).await;
    leader.restart().await.expect("it starts again");

    // A minority without a connection to the others; clients reach it.
    for link in &ensemble.links {
        link.set(Fault::BlackHole).await;
    }
    sleep(OUTAGE).await;
    leader_of(&ensemble).await;
    fleet.restart(1).await;
    for link in &ensemble.links {
        link.set(Fault::None).await;
    }

    for member in &ensemble.members {
        member.restart().await.expect("it starts again");
    }
    fleet.restart(2).await;

    // The sessions of all servers, by another client. The last member was perhaps the leader.
    let (address, parent) = (leader_of(&ensemble).await.address(), "/services/arithmetic");
    let mut operator = Operator::connect(address).await;
    let names = operator.children(parent).await;
    assert_eq!(names.len(), 3, "{names:?}");
    for name in names {
        let path = format!("{parent}/{name}");
        let (_, before) = operator.get(&path).await.expect("a node");
        Operator::kill_session(address, before.owner).await;
        let killed = Instant::now();
        while operator.get(&path).await.is_none_or(|(_, stat)| stat.owner == before.owner) {
            assert!(killed.elapsed() < OUTAGE, "{path} is not made again");
            sleep(Duration::from_millis(20)).await;
        }
    }

    let emptied = join_all(ensemble.members.iter().map(|member| member.restart_empty())).await;
    emptied.into_iter().for_each(|emptied| emptied.expect("it starts again"));
    sleep(OUTAGE).await;
    leader_of(&ensemble).await;
    fleet.restart(0).await;

    let sum = load.stop().await;
    let first: Vec<_> = sum.failures.iter().take(5).collect();
    assert!(first.is_empty(), "{sum}: {first:#?}");
}

/// Waits for a leader with a majority: a server that starts without one gives up.
async fn leader_of(ensemble: &real::ZooKeeperEnsemble) -> &real::ZooKeeper {
    let begun = Instant::now();
    loop {
        if let Some(leader) = ensemble.leader().await {
            return leader;
        }
        assert!(begun.elapsed() < OUTAGE * 6, "no leader is elected");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Longer than the session timeout.
const OUTAGE: Duration = Duration::from_secs(10);
