//! The helpers for real servers, on real servers.

use std::{io::ErrorKind, net::TcpStream, time::Duration};

use tokio::time::{Instant, timeout};
use tower_sd_testkit::{
    real::{Consul, ConsulConfig, Etcd, EtcdConfig},
    servers::required,
    wire::request,
};

#[tokio::test]
#[ignore = "needs consul: cargo xtask test"]
async fn consul_dev_agent_is_killed_and_comes_back_empty() {
    let consul = Consul::dev(required("consul")).await.expect("it starts");
    put(&consul, "1").await;
    assert_eq!(get(&consul).await, 200);
    consul.kill();
    let refused = TcpStream::connect(consul.address()).expect_err("the port is closed");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(!consul.is_running());
    consul.restart().await.expect("it starts again");
    assert_eq!(get(&consul).await, 404);
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test"]
async fn consul_server_keeps_its_data_until_it_is_restarted_empty() {
    let config = ConsulConfig::server(required("consul"));
    let consul = Consul::start(config).await.expect("it starts");
    put(&consul, "1").await;
    consul.stop().await.expect("it stops");
    consul.restart().await.expect("it starts again");
    assert_eq!(get(&consul).await, 200);
    consul.restart_empty().await.expect("it starts again");
    assert_eq!(get(&consul).await, 404);
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test"]
async fn suspended_server_accepts_and_answers_only_when_resumed() {
    let consul = Consul::dev(required("consul")).await.expect("it starts");
    consul.suspend().expect("it runs");
    let ask = request(consul.address(), "GET", "/v1/status/leader", "");
    let silence = timeout(Duration::from_millis(300), ask).await;
    assert!(silence.is_err(), "{silence:?}");
    consul.resume().expect("it runs");
    let answer = request(consul.address(), "GET", "/v1/status/leader", "").await;
    assert_eq!(answer.expect("it answers").status, 200);
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test"]
async fn server_that_does_not_start_reports_why() {
    let config = ConsulConfig::dev(required("consul")).config(r#"{"no_such_key": 1}"#);
    let start = Instant::now();
    let error = Consul::start(config).await.expect_err("a wrong configuration");
    assert!(error.to_string().contains("no_such_key"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10), "it has ended, and is not waited for");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test"]
async fn etcd_keeps_its_data_until_it_is_restarted_empty() {
    let config = EtcdConfig::new(required("etcd"));
    let etcd = Etcd::start(config).await.expect("it starts");
    let (put, key) = (r#"{"key":"YQ==","value":"MQ=="}"#, r#"{"key":"YQ=="}"#);
    let ask = async |target, body| {
        let answer = request(etcd.address(), "POST", target, body).await;
        answer.expect("it answers").body
    };
    ask("/v3/kv/put", put).await;
    etcd.kill();
    etcd.restart().await.expect("it starts again");
    let body = ask("/v3/kv/range", key).await;
    assert!(body.contains("MQ=="), "{body}");
    etcd.restart_empty().await.expect("it starts again");
    let body = ask("/v3/kv/range", key).await;
    assert!(!body.contains("MQ=="), "{body}");
}

async fn put(consul: &Consul, value: &str) {
    let answer = request(consul.address(), "PUT", "/v1/kv/key", value).await;
    assert_eq!(answer.expect("it answers").body.trim(), "true");
}

async fn get(consul: &Consul) -> u16 {
    let answer = request(consul.address(), "GET", "/v1/kv/key?raw", "").await;
    answer.expect("it answers").status
}
