//! An axum server on real sockets: what its clients see when it stops.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::ConnectInfo,
    http::{HeaderName, StatusCode, header},
    routing::get,
};
use rustix::process::{Signal, getpid, kill_process};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    signal::unix::{SignalKind, signal},
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower_sd_core::MemoryRegistry;
use tower_sd_lifecycle::{
    Lifecycle, LifecycleError, Listener, Readiness, Report, ready_route, serve_axum,
};
use tower_sd_testkit::loopback::own_address;

/// A running server, whose `/slow` responds on demand.
struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    answer: Arc<Notify>,
    asked: Arc<Notify>,
    readiness: Readiness,
    life: JoinSet<Result<Report, LifecycleError>>,
}

impl Server {
    async fn start(configure: impl FnOnce(Lifecycle) -> Lifecycle) -> Self {
        let readiness = Readiness::new();
        let (answer, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (answers, asks) = (Arc::clone(&answer), Arc::clone(&asked));
        let slow = move || async move {
            asks.notify_one();
            answers.notified().await;
            "slow"
        };
        let router = Router::new()
            .route("/fast", get(|| async { "fast" }))
            .route("/slow", get(slow))
            .route(
                "/peer",
                get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }),
            )
            .route("/upgrade", get(|| async { (StatusCode::UPGRADE_REQUIRED, UPGRADE, "other") }))
            .route("/ready", ready_route(&readiness));
        let listener = Listener::bind((own_address(), 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stop = CancellationToken::new();
        let lifecycle = Lifecycle::new().readiness(&readiness).shutdown_on(stop.clone());
        let mut life = JoinSet::new();
        life.spawn(configure(lifecycle).run(listener, serve_axum(router)));
        assert!(readiness.ready().await, "{readiness}");
        Self { address, stop, answer, asked, readiness, life }
    }

    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.expect("it listens"))
    }

    async fn end(mut self) -> Report {
        let ended = timeout(BOUND, self.life.join_next()).await.expect("it ends");
        ended.expect("it runs").expect("no panic").expect("no failure")
    }
}

/// One connection.
struct Client(TcpStream);

impl Client {
    async fn ask(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        self.0.write_all(request.as_bytes()).await.expect("it is open");
    }

    /// What comes until it ends with `end`, or with the connection.
    async fn read_to(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        let mut buffer = [0; 1024];
        while !text.ends_with(end.as_bytes()) {
            let read = timeout(BOUND, self.0.read(&mut buffer)).await.expect("something comes");
            match read {
                Ok(n) if n > 0 => text.extend_from_slice(&buffer[..n]),
                _ => break,
            }
        }
        String::from_utf8(text).expect("text")
    }

    /// Whether there is data, or an end.
    async fn is_readable(&mut self) -> bool {
        timeout(Duration::from_millis(1), self.0.readable()).await.is_ok()
    }

    async fn is_closed(&mut self) -> bool {
        let mut buffer = [0; 1];
        let read = timeout(BOUND, self.0.read(&mut buffer)).await.expect("it is closed");
        !matches!(read, Ok(1))
    }
}

fn no_signals(lifecycle: Lifecycle) -> Lifecycle {
    lifecycle.ignore_signals()
}

#[tokio::test]
async fn request_in_flight_is_served_and_its_connection_closed() {
    let server = Server::start(no_signals).await;
    let mut client = server.connect().await;
    client.ask("/slow").await;
    server.asked.notified().await;
    server.stop.cancel();
    let mut idle = server.connect_until_refused().await;
    assert!(idle.is_none_or_closed().await);
    server.answer.notify_one();
    let answer = client.read_to("slow").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(client.is_closed().await);
    let report = server.end().await;
    assert!(report.is_clean(), "{report}");
}

#[tokio::test]
async fn idle_connection_is_closed_when_the_drain_begins() {
    let server = Server::start(no_signals).await;
    let mut client = server.connect().await;
    client.ask("/fast").await;
    let answer = client.read_to("fast").await;
    assert!(!answer.contains("connection: close"), "{answer}");
    server.stop.cancel();
    assert!(client.is_closed().await);
    let report = server.end().await;
    assert!(report.is_clean(), "{report}");
}

/// It reads for a moment what clients still send, which its end must not cut.
#[tokio::test]
async fn server_that_ends_by_itself_aborts_no_idle_connection() {
    let listener = Listener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let ends = CancellationToken::new();
    let ended = ends.clone().cancelled_owned();
    let router = Router::new().route("/fast", get(|| async { "fast" }));
    let mut life = JoinSet::new();
    life.spawn(Lifecycle::new().ignore_signals().run(listener, |listener, _drain| async move {
        axum::serve(listener, router).with_graceful_shutdown(ended).await
    }));
    let mut client = Client(TcpStream::connect(address).await.expect("it listens"));
    client.ask("/fast").await;
    client.read_to("fast").await;
    ends.cancel();
    let ended = timeout(BOUND, life.join_next()).await.expect("it ends").expect("it runs");
    let report = ended.expect("no panic").expect("no failure");
    assert!(report.is_clean(), "{report}");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn request_that_never_ends_is_aborted_at_the_timeout() {
    let deadline = Duration::from_millis(300);
    let server = Server::start(|life| no_signals(life).drain_timeout(deadline)).await;
    let mut client = server.connect().await;
    client.ask("/slow").await;
    server.asked.notified().await;
    let handler = Arc::downgrade(&server.answer);
    let begun = Instant::now();
    server.stop.cancel();
    assert_eq!(client.read_to("never").await, "");
    assert!(begun.elapsed() >= deadline, "{:?}", begun.elapsed());
    let report = server.end().await;
    let printed = report.to_string();
    assert!(printed.contains(" drain timed out in "), "{printed}");
    assert!(printed.ends_with(", 1 connections aborted"), "{printed}");
    // The handler is gone with all that it held, not only its connection.
    while handler.strong_count() > 0 {
        assert!(begun.elapsed() < BOUND);
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn connections_are_kept_while_clients_take_notice() {
    let server = Server::start(|life| no_signals(life).propagation(BOUND)).await;
    let mut client = server.connect().await;
    client.ask("/ready").await;
    let answer = client.read_to("ready").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.stop.cancel();
    while server.readiness.is_ready() {
        sleep(Duration::from_millis(1)).await;
    }
    for mut client in [client, server.connect().await] {
        client.ask("/ready").await;
        let answer = client.read_to("draining").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
        client.ask("/fast").await;
        assert!(client.read_to("fast").await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn connections_are_closed_with_their_response_before_the_drain() {
    let wait = Duration::from_millis(1500);
    let server = Server::start(|life| no_signals(life).propagation(wait)).await;
    let (mut client, mut old) = (server.connect().await, server.connect().await);
    server.stop.cancel();
    while server.readiness.to_string() != "closing" {
        sleep(Duration::from_millis(1)).await;
    }
    client.ask("/ready").await;
    old.ask("/upgrade").await;
    let answer = client.read_to("closing").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(client.is_closed().await);
    // A refusal that has its own use for the header keeps it.
    let answer = old.read_to("other").await;
    assert!(answer.contains("connection: upgrade, close"), "{answer}");
    assert!(old.is_closed().await);
    let report = server.end().await;
    assert!(report.is_clean(), "{report}");
}

#[cfg(unix)]
#[tokio::test]
async fn unix_socket_is_registered_served_and_drained() {
    let path = std::env::temp_dir().join(format!("lifecycle-{}.sock", std::process::id()));
    let _left = std::fs::remove_file(&path);
    let listener = tokio::net::UnixListener::bind(&path).expect("a free path");
    let router = Router::new().route("/fast", get(|| async { "fast" }));
    let (admin, stop) = (Listener::bind("127.0.0.1:0").await, CancellationToken::new());
    let registry = MemoryRegistry::new();
    let lifecycle = Lifecycle::new()
        .ignore_signals()
        .shutdown_on(stop.clone())
        .register(registry.clone(), "a")
        .serve(admin.expect("a free port"), serve_axum(Router::new()));
    let mut life = JoinSet::new();
    life.spawn(lifecycle.run(listener, serve_axum(router)));
    let mut client = tokio::net::UnixStream::connect(&path).await.expect("it listens");
    client.write_all(b"GET /fast HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it is open");
    let mut answer = Vec::new();
    while !answer.ends_with(b"fast") {
        let read = timeout(BOUND, client.read_buf(&mut answer)).await.expect("something comes");
        assert_ne!(read.expect("it is open"), 0, "{answer:?}");
    }
    let registered = async {
        while registry.entries("a").is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(BOUND, registered).await.expect("registered after it serves");
    let hosts: Vec<_> = registry.entries("a").iter().map(|it| it.host().to_owned()).collect();
    assert_eq!(hosts, [format!("unix:{}", path.display())]);
    stop.cancel();
    let read = timeout(BOUND, client.read(&mut [0])).await.expect("it is closed");
    assert_eq!(read.expect("in order"), 0);
    let ended = timeout(BOUND, life.join_next()).await.expect("it ends").expect("it runs");
    let report = ended.expect("no panic").expect("no failure");
    assert!(report.is_clean(), "{report}");
    tokio::net::UnixStream::connect(&path).await.expect_err("it is closed");
    std::fs::remove_file(&path).expect("ours");
}

#[tokio::test]
async fn ready_route_follows_the_health() {
    let server = Server::start(no_signals).await;
    let mut client = server.connect().await;
    for (is_healthy, status, body) in [(false, "503", "unhealthy"), (true, "200", "ready")] {
        server.readiness.set_healthy(is_healthy);
        client.ask("/ready").await;
        let answer = client.read_to(body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

#[tokio::test]
async fn handlers_have_the_address_of_their_peer() {
    let server = Server::start(no_signals).await;
    let mut client = server.connect().await;
    let address = client.0.local_addr().expect("it is open").to_string();
    client.ask("/peer").await;
    let answer = client.read_to(&address).await;
    assert!(answer.ends_with(&address), "{answer}");
}

/// The only test of this process that lets signals stop a server: they reach all of it.
#[tokio::test]
async fn second_sigterm_aborts_open_connections() {
    let mut signals = signal(SignalKind::terminate()).expect("a runtime");
    let server = Server::start(|life| life).await;
    let mut client = server.connect().await;
    client.ask("/slow").await;
    server.asked.notified().await;
    let terminate = || kill_process(getpid(), Signal::TERM).expect("our own process");
    terminate();
    signals.recv().await;
    assert!(server.connect_until_refused().await.is_none_or_closed().await);
    // Forwarded by a supervisor, it is the same one.
    terminate();
    signals.recv().await;
    sleep(Duration::from_millis(1100)).await;
    assert!(!client.is_readable().await, "it is not cut");
    let begun = Instant::now();
    terminate();
    let report = server.end().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "the drain would take 20 s");
    let printed = report.to_string();
    assert!(printed.starts_with("stopped by SIGTERM: "), "{printed}");
    assert!(printed.ends_with(", 1 connections aborted"), "{printed}");
    assert!(client.is_closed().await);
}

impl Server {
    /// Connects until it accepts nothing more. One that comes while it stops to accept is closed.
    async fn connect_until_refused(&self) -> Last {
        let begun = Instant::now();
        let mut last = None;
        while let Ok(stream) = TcpStream::connect(self.address).await {
            last = Some(Client(stream));
            assert!(begun.elapsed() < BOUND, "it still accepts");
            sleep(Duration::from_millis(1)).await;
        }
        Last(last)
    }
}

/// The last connection that was made.
struct Last(Option<Client>);

impl Last {
    async fn is_none_or_closed(&mut self) -> bool {
        match &mut self.0 {
            None => true,
            Some(client) => client.is_closed().await,
        }
    }
}

const UPGRADE: [(HeaderName, &str); 2] =
    [(header::CONNECTION, "upgrade"), (header::UPGRADE, "example/2")];
const BOUND: Duration = Duration::from_secs(10);
