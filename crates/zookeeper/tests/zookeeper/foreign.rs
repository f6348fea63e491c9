//! go-kit's `sd/zk` and Curator's `ServiceDiscovery` find ours, and are found.

use std::{path::Path, process::Command, time::Duration};

use tower_sd_core::{Instance, InstanceStatus, Instancer, Registration};
use tower_sd_testkit::{
    process::Process,
    proxy::{Fault, Proxy},
    servers::required,
    wait::{fresh_with, shows_that},
};
use tower_sd_zookeeper::{Curator, GoKit, Layout, ZooKeeper, ZooKeeperConfig};

use crate::support::{TTL, ZooKeeperFixture, holds, newest, on_every_zookeeper};

/// In both directions, and again after ZooKeeper has ended the session of ours.
#[tokio::test]
#[ignore = "needs a real ZooKeeper, and go-kit"]
async fn go_kit_finds_ours_and_is_found() {
    on_every_zookeeper(async |fixture| {
        let (proxy, zookeeper) = behind_proxy(fixture, GoKit::default()).await;
        let logs = tempfile::tempdir().expect("a folder");
        let address = fixture.server.address().to_string();
        let watch = |service: &str| {
            let args = ["watch-zookeeper", &address, &format!("/services/{service}")];
            start("gokit", &args, &logs.path().join(format!("{service}-{}", fastrand::u32(..))))
        };

        let handle = zookeeper.register(Registration::new("ours", ours())).await;
        let handle = handle.expect("it registers");
        let go_kit = watch("ours");
        shows(&go_kit, r#"["10.0.0.7:8081"]"#).await;

        let args = ["register-zookeeper", &address, "/services", "theirs", "10.0.0.8:80"];
        let theirs = start("gokit", &args, &logs.path().join("registration"));
        let mut subscription = zookeeper.instancer("theirs").subscribe();
        let found = shows_that(&mut subscription, "go-kit's", BOUND, fresh_with(1)).await;
        let found = found.instances()[0].clone();
        assert_eq!((found.host(), found.port()), ("10.0.0.8", 80));

        expire(fixture, &proxy, "/services/ours/a").await;
        let again = watch("ours");
        shows(&again, r#"["10.0.0.7:8081"]"#).await;
        shows(&go_kit, r#"["10.0.0.7:8081"]"#).await;
        shows_that(&mut subscription, "go-kit's", BOUND, fresh_with(1)).await;

        theirs.kill().expect("it runs");
        shows_that(&mut subscription, "none", BOUND, fresh_with(0)).await;
        handle.deregister().await.expect("it deregisters");
        shows(&go_kit, "[]").await;
    })
    .await;
}

/// With the payload of Spring Cloud ZooKeeper; Curator 5 does not work with ZooKeeper 3.4.
#[tokio::test]
#[ignore = "needs a real ZooKeeper, and Curator"]
async fn curator_finds_ours_and_is_found() {
    let fixture = &ZooKeeperFixture::start(newest()).await.expect("ZooKeeper starts");
    let (proxy, zookeeper) = behind_proxy(fixture, Curator::default()).await;
    let logs = tempfile::tempdir().expect("a folder");
    let address = fixture.server.address().to_string();

    let args = ["watch", &address, "/services", "ours"];
    let curator = start("curator", &args, &logs.path().join("watch"));
    let handle = zookeeper.register(Registration::new("ours", ours())).await;
    let handle = handle.expect("it registers");
    let parts = [r#""id":"a""#, r#""address":"10.0.0.7""#, r#""port":8081"#, r#""shard":"3""#];
    for part in parts {
        shows(&curator, part).await;
    }

    let args = ["register", &address, "/services", "theirs", "b", "10.0.0.8", "8443"];
    let theirs = start("curator", &args, &logs.path().join("registration"));
    let mut subscription = zookeeper.instancer("theirs").subscribe();
    let found = shows_that(&mut subscription, "Curator's", BOUND, fresh_with(1)).await;
    let found = found.instances()[0].clone();
    assert_eq!((found.id().as_str(), found.host(), found.port()), ("b", "10.0.0.8", 8443));
    assert_eq!(found.metadata()["language"], "java");
    assert_eq!(found.status(), InstanceStatus::Passing);

    expire(fixture, &proxy, "/services/ours/a").await;
    handle.update(|it| it.with_metadata("shard", "4")).await.expect("it updates");
    shows(&curator, r#""shard":"4""#).await;
    shows_that(&mut subscription, "Curator's", BOUND, fresh_with(1)).await;

    theirs.stop(BOUND).await.expect("it ends");
    shows_that(&mut subscription, "none", BOUND, fresh_with(0)).await;
    handle.deregister().await.expect("it deregisters");
    shows(&curator, "[]").await;
}

async fn behind_proxy(fixture: &ZooKeeperFixture, layout: impl Layout) -> (Proxy, ZooKeeper) {
    let proxy = Proxy::start(fixture.server.address()).await.expect("loopback");
    let config = ZooKeeperConfig::new([proxy.address().to_string()]);
    let config = config.session_timeout(TTL).layout(layout);
    (proxy, ZooKeeper::new(config).expect("the settings can work"))
}

fn ours() -> Instance {
    Instance::new("10.0.0.7", 8081).with_id("a").with_metadata("shard", "3")
}

/// Cuts ours off until the server has ended its session, and waits until it is back.
async fn expire(fixture: &ZooKeeperFixture, proxy: &Proxy, path: &str) {
    proxy.set(Fault::Refuse).await;
    holds("the session expires", BOUND, async || {
        fixture.operator().await.get(path).await.is_none()
    })
    .await;
    proxy.set(Fault::None).await;
    holds("registered again", BOUND, async || fixture.operator().await.get(path).await.is_some())
        .await;
}

fn start(program: &'static str, args: &[&str], log: &Path) -> Process {
    let mut command = Command::new(required(program).path);
    Process::start(command.args(args), log).expect("the program starts")
}

/// Waits until the last set that the program has printed has `part` in it.
async fn shows(program: &Process, part: &str) {
    holds(&format!("{part} in the output"), BOUND, async || {
        let output = program.output();
        let set = output.lines().rfind(|line| line.starts_with('['));
        set.is_some_and(|set| set.contains(part))
    })
    .await;
}

/// Three servers and two JVMs share a machine.
const BOUND: Duration = Duration::from_secs(60);
