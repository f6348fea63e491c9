//! Settings that a running server follows, in a node of ZooKeeper.

use std::{process::Command, time::Duration};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tower_sd_testkit::{process::Process, real, servers::required, wire::request};

use crate::{
    fleet::{listening_on, program},
    operator::{CreateMode, Operator},
};

/// Switches an operation off, and on again.
pub(crate) async fn tell() {
    let config = real::ZooKeeperConfig::new(required("zookeeper"));
    let zookeeper = real::ZooKeeper::start(config).await.expect("it starts");
    let folder = TempDir::new().expect("a folder");
    let log = folder.path().join("server");
    let url = format!("zookeeper://{}/arithmetic/server", zookeeper.address());
    let args = ["server", "--registry", "static://", "--listen", "127.0.0.1:0", "--config", &url];
    let server = Process::start(Command::new(program()).args(args), &log).expect("starts");
    let address = listening_on(&server, &log).await;
    let becomes = async |status: u16| {
        let begun = Instant::now();
        loop {
            let answer = request(address, "POST", "/calculate/Divide/6/3", "").await;
            let answer = answer.expect("it answers");
            if answer.status == status {
                return;
            }
            assert!(begun.elapsed() < BOUND, "{answer:?}: {}", server.output());
            sleep(Duration::from_millis(20)).await;
        }
    };
    becomes(200).await;
    let (mut operator, path) = (Operator::connect(zookeeper.address()).await, "/arithmetic/server");
    operator.create(path, br#"{"off": ["Divide"]}"#, CreateMode::Persistent).await;
    becomes(503).await;
    operator.set(path, br#"{"off": ["Add"]}"#).await;
    becomes(200).await;
    server.stop(BOUND).await.expect("it ends");
}

const BOUND: Duration = Duration::from_secs(10);
