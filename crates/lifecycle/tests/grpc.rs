//! A tonic server on real sockets, as clients of its health service observe it.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Streaming,
    transport::{Channel, Server},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};
use tower_sd_core::{BoxError, FixedInstancer, MemoryRegistry};
use tower_sd_lifecycle::{
    Lifecycle, LifecycleError, Listener, Readiness, Report, ready_health, serve_tonic,
};

struct Life {
    address: SocketAddr,
    stop: CancellationToken,
    warm: CancellationToken,
    readiness: Readiness,
    life: JoinSet<Result<Report, LifecycleError>>,
}

impl Life {
    /// Serves, and is ready when `warm` is cancelled.
    async fn begin() -> Self {
        let readiness = Readiness::new();
        let router = Server::builder().add_service(ready_health(&readiness, ["shop.Orders"]));
        let listener = Listener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stop, warm) = (CancellationToken::new(), CancellationToken::new());
        let warmed = warm.clone();
        let lifecycle = Lifecycle::new()
            .readiness(&readiness)
            .shutdown_on(stop.clone())
            .before_ready(|| async move {
                warmed.cancelled_owned().await;
                Ok::<_, BoxError>(())
            });
        let mut life = JoinSet::new();
        life.spawn(lifecycle.run(listener, serve_tonic(router)));
        Self { address, stop, warm, readiness, life }
    }

    async fn client(&self) -> HealthClient<Channel> {
        let channel = Channel::from_shared(format!("http://{}", self.address)).expect("a URL");
        HealthClient::new(channel.connect().await.expect("it listens"))
    }
}

#[tokio::test]
async fn health_watch_follows_readiness_and_does_not_delay_the_end() {
    let mut server = Life::begin().await;
    let mut client = server.client().await;
    let mut whole = client.watch(asked("")).await.expect("it serves").into_inner();
    let mut orders = client.watch(asked("shop.Orders")).await.expect("it serves").into_inner();
    let mut other = client.watch(asked("shop.Carts")).await.expect("it serves").into_inner();
    let starting = client.check(asked("")).await.expect("it serves").into_inner();
    assert_eq!(starting.status(), ServingStatus::NotServing);
    for watched in [&mut whole, &mut orders] {
        assert_eq!(next(watched).await, Some(ServingStatus::NotServing));
    }
    assert_eq!(next(&mut other).await, Some(ServingStatus::ServiceUnknown));

    server.warm.cancel();
    for watched in [&mut whole, &mut orders] {
        assert_eq!(next(watched).await, Some(ServingStatus::Serving));
    }
    let ready = client.check(asked("shop.Orders")).await.expect("it serves").into_inner();
    assert_eq!(ready.status(), ServingStatus::Serving);
    let unknown = client.check(asked("shop.Carts")).await.expect_err("it has no such service");
    assert_eq!((unknown.code(), unknown.message()), (Code::NotFound, UNKNOWN));

    for (is_healthy, expected) in
        [(false, ServingStatus::NotServing), (true, ServingStatus::Serving)]
    {
        server.readiness.set_healthy(is_healthy);
        for watched in [&mut whole, &mut orders] {
            assert_eq!(next(watched).await, Some(expected));
        }
    }

    let begun = Instant::now();
    server.stop.cancel();
    for watched in [&mut whole, &mut orders] {
        assert_eq!(next(watched).await, Some(ServingStatus::NotServing));
        assert_eq!(next(watched).await, None);
    }
    let ended = timeout(BOUND, server.life.join_next()).await.expect("it ends");
    let report = ended.expect("it runs").expect("no panic").expect("no failure");
    // A stream that stays open is aborted when the drain's deadline of 20 s has passed.
    assert!(begun.elapsed() < BOUND, "{report}");
    assert!(report.to_string().contains("drain done"), "{report}");
}

/// One has sent nothing at all, the other acknowledges nothing.
#[tokio::test]
async fn silent_peers_do_not_delay_the_end() {
    let mut server = Life::begin().await;
    server.warm.cancel();
    assert!(server.readiness.ready().await);
    let _silent = TcpStream::connect(server.address).await.expect("it listens");
    let mut vanished = TcpStream::connect(server.address).await.expect("it listens");
    vanished.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("it is open");
    vanished.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("it is open");
    vanished.read_exact(&mut [0; 9]).await.expect("settings");
    server.stop.cancel();
    // The silence of one takes 5 s, and the drain would take 20 s.
    let ended = timeout(Duration::from_secs(15), server.life.join_next()).await;
    let ended = ended.expect("it ends before the bound of the drain");
    let report = ended.expect("it runs").expect("no panic").expect("no failure");
    assert!(report.is_clean(), "{report}");
}

#[cfg(unix)]
#[tokio::test]
async fn server_at_a_unix_socket_is_called_by_its_registration() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("orders.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("a free path");
    let (readiness, registry, stop) =
        (Readiness::new(), MemoryRegistry::new(), CancellationToken::new());
    let router = Server::builder().add_service(ready_health(&readiness, ["shop.Orders"]));
    let lifecycle = Lifecycle::new()
        .readiness(&readiness)
        .ignore_signals()
        .shutdown_on(stop.clone())
        .register(registry.clone(), "orders");
    let mut life = JoinSet::new();
    life.spawn(lifecycle.run(listener, serve_tonic(router)));
    let registered = async {
        while registry.entries("orders").is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(BOUND, registered).await.expect("registered after it serves");

    let instances = registry.entries("orders");
    assert_eq!(instances[0].host(), format!("unix:{}", path.display()));
    let channel = tower_sd_tonic::Channel::new(FixedInstancer::new(instances));
    let mut client = HealthClient::new(channel);
    let mut orders = client.watch(asked("shop.Orders")).await.expect("it serves").into_inner();
    assert_eq!(next(&mut orders).await, Some(ServingStatus::Serving));
    let ready = client.check(asked("")).await.expect("it serves").into_inner();
    assert_eq!(ready.status(), ServingStatus::Serving);

    stop.cancel();
    assert_eq!(next(&mut orders).await, Some(ServingStatus::NotServing));
    assert_eq!(next(&mut orders).await, None);
    let ended = timeout(BOUND, life.join_next()).await.expect("it ends").expect("it runs");
    let report = ended.expect("no panic").expect("no failure");
    assert!(report.is_clean(), "{report}");
    let refused = client.check(asked("")).await.expect_err("it is closed");
    assert_eq!(refused.code(), Code::Unavailable);
}

fn asked(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

async fn next(watched: &mut Streaming<HealthCheckResponse>) -> Option<ServingStatus> {
    let answer = timeout(BOUND, watched.message()).await.expect("something comes");
    answer.expect("no failure").map(|answer| answer.status())
}

const UNKNOWN: &str = "there is no service \"shop.Carts\" here";
const BOUND: Duration = Duration::from_secs(10);
