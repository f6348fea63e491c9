//! The server-side examples, over real sockets.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower_sd_core::{BoxError, Instance, MemoryRegistry, Registration, TlsConfig};
use tower_sd_lifecycle::{Lifecycle, Listener};
use tower_sd_net::{Dialer, Io, Target, TlsClient};
use tower_sd_testkit::loopback::own_address;

#[expect(dead_code, reason = "the example's main")]
#[path = "../examples/server_dependency.rs"]
mod server_dependency;
#[expect(dead_code, reason = "the example's main")]
#[path = "../examples/server_kubernetes.rs"]
mod server_kubernetes;
#[expect(dead_code, reason = "the example's main")]
#[path = "../examples/server_tls.rs"]
mod server_tls;

async fn listen() -> (Listener, SocketAddr) {
    let listener = Listener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

fn stopping_on(token: &CancellationToken) -> Lifecycle {
    Lifecycle::new().ignore_signals().shutdown_on(token.clone())
}

/// The status line and body of a request on a connection of its own.
async fn get(mut io: Io, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    io.write_all(request.as_bytes()).await.expect("open");
    let mut response = String::new();
    let read = timeout(BOUND, io.read_to_string(&mut response)).await.expect("a response");
    read.expect("open");
    response
}

async fn plain(address: SocketAddr, path: &str) -> String {
    get(TcpStream::connect(address).await.expect("it listens").into(), path).await
}

async fn eventually(address: SocketAddr, path: &str, expected: &str) {
    let begun = Instant::now();
    loop {
        let response = plain(address, path).await;
        if response.contains(expected) {
            return;
        }
        assert!(begun.elapsed() < BOUND, "{response}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn end(mut life: JoinSet<Result<(), BoxError>>) -> Result<(), BoxError> {
    let ended = timeout(BOUND, life.join_next()).await.expect("it ends");
    ended.expect("it runs").expect("no panic")
}

#[tokio::test]
async fn dependency_without_an_instance_delays_readiness() {
    let registry = MemoryRegistry::new();
    let (listener, address) = listen().await;
    let stop = CancellationToken::new();
    let mut life = JoinSet::new();
    life.spawn(server_dependency::run(stopping_on(&stop), listener, registry.clone(), BOUND));
    let waiting = plain(address, "/ready").await;
    assert!(waiting.starts_with("HTTP/1.1 503"), "{waiting}");
    assert!(registry.entries("frontend").is_empty());

    let orders = Registration::new("orders", Instance::new("127.0.0.1", address.port()));
    let orders = registry.register(orders).await.expect("registered");
    eventually(address, "/ready", "HTTP/1.1 200").await;
    assert!(plain(address, "/").await.ends_with("1 endpoints"));
    let begun = Instant::now();
    while registry.entries("frontend").is_empty() {
        assert!(begun.elapsed() < BOUND, "not registered");
        sleep(Duration::from_millis(10)).await;
    }
    stop.cancel();
    end(life).await.expect("no failure");
    drop(orders);
}

#[tokio::test]
async fn dependency_that_never_comes_ends_the_start() {
    let (listener, _address) = listen().await;
    let (stop, patience) = (CancellationToken::new(), Duration::from_millis(50));
    let mut life = JoinSet::new();
    let registry = MemoryRegistry::new();
    life.spawn(server_dependency::run(stopping_on(&stop), listener, registry.clone(), patience));
    let error = end(life).await.expect_err("no instance");
    assert_eq!(error.to_string(), "the server failed in step ready");
    assert!(registry.entries("frontend").is_empty());
}

#[tokio::test]
async fn propagation_serves_requests_after_the_order_to_stop() {
    let listener = Listener::bind((own_address(), 0)).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (stop, propagation) = (CancellationToken::new(), Duration::from_secs(2));
    let mut life = JoinSet::new();
    life.spawn(server_kubernetes::run(stopping_on(&stop), listener, propagation));
    eventually(address, "/ready", "HTTP/1.1 200").await;
    let ordered = Instant::now();
    stop.cancel();
    eventually(address, "/ready", "HTTP/1.1 503").await;
    while ordered.elapsed() < propagation / 2 {
        assert!(plain(address, "/").await.ends_with("hello"));
        sleep(Duration::from_millis(20)).await;
    }
    end(life).await.expect("no failure");
    assert!(ordered.elapsed() >= propagation, "{:?}", ordered.elapsed());
    TcpStream::connect(address).await.expect_err("it is closed");
}

/// Writes a new certificate, signed by itself, and returns it.
fn rotate(folder: &Path) -> String {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("signs");
    fs::write(folder.join("key.pem"), certified.signing_key.serialize_pem()).expect("written");
    fs::write(folder.join("cert.pem"), certified.cert.pem()).expect("written");
    certified.cert.pem()
}

async fn secured(port: u16, root: &str) -> Result<String, BoxError> {
    let tls = TlsClient::new(TlsConfig::new().with_root(root))?;
    let target = Target::host("localhost", port);
    let connection = Dialer::new().dial(&target, Some(&tls), &[b"http/1.1"]).await?;
    Ok(get(connection.io, "/").await)
}

#[tokio::test]
async fn replaced_certificate_is_used_for_new_connections() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = rotate(folder.path());
    let (listener, address) = listen().await;
    let stop = CancellationToken::new();
    let [certificate, key] = ["cert.pem", "key.pem"].map(|file| folder.path().join(file));
    let mut life = JoinSet::new();
    life.spawn(server_tls::run(stopping_on(&stop), listener, certificate, key));
    let response = secured(address.port(), &old).await.expect("trusted");
    assert!(response.ends_with("hello"), "{response}");
    let new = rotate(folder.path());
    sleep(Duration::from_millis(1100)).await;
    let response = secured(address.port(), &new).await.expect("replaced");
    assert!(response.ends_with("hello"), "{response}");
    secured(address.port(), &old).await.expect_err("not any more");
    stop.cancel();
    end(life).await.expect("no failure");
}

const BOUND: Duration = Duration::from_secs(20);
