use std::{process::Command, time::Duration};

use tokio::time::{Instant, sleep};
use tower_sd_core::{Instance, InstanceStatus, Instancer, Registration};
use tower_sd_testkit::{
    process::Process, real, servers::required, wait::shows_that, wire::request,
};

use crate::support::{BOUND, client, query, update};

/// A Spring Cloud application finds ours with metadata and status, and is found by us.
#[tokio::test]
#[ignore = "needs eureka"]
async fn spring_client_finds_ours_and_is_found() {
    let binary = required("eureka");
    let config = real::EurekaConfig::quick(binary.clone());
    let server = real::Eureka::start(config).await.expect("a server");
    let spring = real::SpringClient::start(binary, &server, "spring-app").await.expect("a client");
    let eureka = client(&[&server]);

    let mut subscription = eureka.instancer(query("spring-app")).subscribe();
    let found = shows_that(&mut subscription, "Spring's", BOUND, |it| it.instances().len() == 1);
    let found = found.await.instances()[0].clone();
    assert_eq!(found.port(), spring.address().port());
    assert_eq!(found.host(), spring.address().ip().to_string());
    assert_eq!(found.metadata()["language"], "java");
    assert_eq!((found.zone(), found.status()), (Some("eu-1a"), InstanceStatus::Passing));
    let by_vip = tower_sd_eureka::Query::vip("spring-app").poll_interval(Duration::from_secs(1));
    let mut by_vip = eureka.instancer(by_vip).subscribe();
    shows_that(&mut by_vip, "Spring's", BOUND, |it| it.instances() == [found.clone()]).await;

    let instance = Instance::new("10.0.0.7", 8081).with_metadata("shard", "3").with_zone("eu-1b");
    let ours = Registration::new("ours", instance).fail_fast(BOUND);
    let ours = eureka.register(ours).await.expect("registered");
    let secure = Instance::new("10.0.0.7", 8443).with_scheme("https");
    let secure = Registration::new("ours-tls", secure).fail_fast(BOUND);
    let _tls = eureka.register(secure).await.expect("registered");
    shows(&spring, "/found/ours", |it| {
        ["\"port\":8081", "10.0.0.7:ours:8081", "\"shard\":\"3\"", "\"zone\":\"eu-1b\""]
            .iter()
            .all(|part| it.contains(part))
    })
    .await;
    shows(&spring, "/found/ours-tls", |it| {
        it.contains("\"secure\":true") && it.contains("\"port\":8443")
    })
    .await;
    shows(&spring, "/statuses/ours", |it| it == r#"["UP"]"#).await;
    update(&ours, |it| it.with_status(InstanceStatus::Draining)).await;
    shows(&spring, "/statuses/ours", |it| it == r#"["OUT_OF_SERVICE"]"#).await;
    shows(&spring, "/found/ours", |it| it == "[]").await;
    ours.deregister().await.expect("deregistered");
    shows(&spring, "/statuses/ours", |it| it == "[]").await;
}

/// It shows all that are registered, whatever their status, as `host:port`.
#[tokio::test]
#[ignore = "needs eureka, and go-kit"]
async fn go_kit_finds_ours() {
    let config = real::EurekaConfig::quick(required("eureka"));
    let server = real::Eureka::start(config).await.expect("a server");
    let eureka = client(&[&server]);
    let ours = Registration::new("ours", Instance::new("10.0.0.7", 8081)).fail_fast(BOUND);
    let ours = eureka.register(ours).await.expect("registered");
    let logs = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(required("gokit").path);
    command.args(["watch-eureka", &server.url(), "OURS"]);
    let go_kit = Process::start(&mut command, &logs.path().join("gokit")).expect("it starts");
    let shows = async |wanted: &str| {
        let deadline = Instant::now() + BOUND;
        while go_kit.output().lines().rfind(|line| line.starts_with('[')) != Some(wanted) {
            assert!(Instant::now() < deadline, "{wanted}");
            sleep(Duration::from_millis(50)).await;
        }
    };
    shows(r#"["10.0.0.7:8081"]"#).await;
    let second = Registration::new("ours", Instance::new("10.0.0.8", 8082)).fail_fast(BOUND);
    let _second = eureka.register(second).await.expect("registered");
    shows(r#"["10.0.0.7:8081","10.0.0.8:8082"]"#).await;
    ours.deregister().await.expect("deregistered");
    shows(r#"["10.0.0.8:8082"]"#).await;
}

async fn shows(spring: &real::SpringClient, target: &str, wanted: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + BOUND;
    loop {
        let answer = request(spring.address(), "GET", target, "").await.expect("it runs");
        if wanted(&answer.body) {
            return;
        }
        assert!(Instant::now() < deadline, "{target}: {answer:?}");
        sleep(Duration::from_millis(200)).await;
    }
}
