//! The health that an instance reports by `grpc.health.v1`.

use std::{
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower_sd_balance::{
    AddressPolicy, EndpointState, Endpointer, EndpointerConfig, FixedInstancer, Instance,
    Instancer, Publisher, RegistryConfig, Sink, Subscription,
};
use tower_sd_http::HttpFactory;
use tower_sd_tonic::GrpcFactory;

use crate::{Endpoints, balanced, message, server::Server};

const SERVICE: &str = "echo.Echo";

async fn server_that_says(status: ServingStatus) -> (Server, HealthReporter) {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status(SERVICE, status).await;
    let server = Server::start_with(|routes| {
        routes.add_service(service);
    });
    (server, reporter)
}

fn checked(service: &str, instances: impl IntoIterator<Item = Instance>) -> Endpoints {
    let pause = Duration::from_millis(50);
    let config = EndpointerConfig::new().backoff(pause, pause);
    let instancer = FixedInstancer::new(instances);
    Endpointer::with_config(&instancer, GrpcFactory::new().health(service), config)
}

fn is(endpointer: &Endpoints, server: &Server, state: EndpointState) -> bool {
    let report = endpointer.report();
    let mut endpoints = report.endpoints.iter();
    endpoints.any(|it| it.instance.port() == server.address.port() && it.state == state)
}

async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn call_often(endpointer: &Endpoints) {
    let mut client = balanced(endpointer);
    for _ in 0..20 {
        client.one(message("hello")).await.expect("one of them serves");
    }
}

#[tokio::test]
async fn instance_gets_calls_once_it_reports_that_it_serves() {
    let (good, _reporter) = server_that_says(ServingStatus::Serving).await;
    let (late, reporter) = server_that_says(ServingStatus::NotServing).await;
    let endpointer = checked(SERVICE, [good.instance(), late.instance()]);
    endpointer.ready(Duration::from_secs(10)).await.expect("one serves");
    call_often(&endpointer).await;
    assert!(late.echo.seen().is_empty(), "it does not serve");
    until("the reason is reported", || async {
        let report = endpointer.report();
        report.endpoints.iter().any(|it| {
            let reason = it.error.as_deref().unwrap_or_default();
            it.state == EndpointState::Creating && reason.contains("the instance is not serving")
        })
    })
    .await;

    reporter.set_service_status(SERVICE, ServingStatus::Serving).await;
    until("it gets calls", || async {
        call_often(&endpointer).await;
        !late.echo.seen().is_empty()
    })
    .await;
}

#[tokio::test]
async fn instance_that_stops_serving_gets_no_calls_meanwhile() {
    let (good, _reporter) = server_that_says(ServingStatus::Serving).await;
    let (moody, reporter) = server_that_says(ServingStatus::Serving).await;
    let endpointer = checked(SERVICE, [good.instance(), moody.instance()]);
    until("both are ready", || async {
        let ready = |server| is(&endpointer, server, EndpointState::Ready);
        ready(&good) && ready(&moody)
    })
    .await;
    call_often(&endpointer).await;
    assert!(!moody.echo.seen().is_empty());

    reporter.set_service_status(SERVICE, ServingStatus::NotServing).await;
    until("it is out", || async {
        call_often(&endpointer).await;
        is(&endpointer, &moody, EndpointState::Down)
    })
    .await;
    let before = moody.echo.seen().len();
    call_often(&endpointer).await;
    assert_eq!(moody.echo.seen().len(), before);

    reporter.set_service_status(SERVICE, ServingStatus::Serving).await;
    until("it is back", || async { is(&endpointer, &moody, EndpointState::Ready) }).await;
    call_often(&endpointer).await;
    assert!(moody.echo.seen().len() > before);
}

#[tokio::test]
async fn instance_without_health_checks_serves_but_no_unknown_one() {
    let without = Server::start();
    let (other, _reporter) = server_that_says(ServingStatus::Serving).await;
    let endpointer = checked("shop.Orders", [without.instance(), other.instance()]);
    endpointer.ready(Duration::from_secs(10)).await.expect("one counts as serving");
    call_often(&endpointer).await;
    assert_eq!(without.echo.seen().len(), 20);
    assert!(other.echo.seen().is_empty());
}

#[tokio::test]
async fn broken_stream_changes_nothing_until_the_next_probe() {
    let (mut server, _reporter) = server_that_says(ServingStatus::Serving).await;
    let endpointer = checked(SERVICE, [server.instance()]);
    endpointer.ready(Duration::from_secs(10)).await.expect("it serves");
    call_often(&endpointer).await;
    server.kill();
    // The connection reports so, not the health check.
    let status = balanced(&endpointer).one(message("hello")).await.expect_err("it is dead");
    assert!(!status.message().contains("serving"), "{}", status.message());
    endpointer.close().await;
}

/// Lists what the test sets, and holds what is lost.
struct Registry(Publisher);

impl Instancer for Registry {
    fn subscribe(&self) -> Subscription {
        self.0.subscribe()
    }
}

#[tokio::test]
async fn held_instance_that_does_not_serve_for_a_while_is_kept() {
    let (server, reporter) = server_that_says(ServingStatus::Serving).await;
    let config = RegistryConfig::default().addresses(AddressPolicy::any());
    let config = config.removal_wait(Duration::ZERO);
    let mut registry = Registry(Publisher::new("test", "test", config));
    registry.0.set(vec![server.instance()].into());
    let pause = Duration::from_millis(50);
    let config = EndpointerConfig::new().backoff(pause, pause);
    let factory = GrpcFactory::new().health(SERVICE);
    let endpointer = Endpointer::with_config(&registry, factory, config);
    endpointer.ready(Duration::from_secs(10)).await.expect("it serves");
    registry.0.set(Vec::new().into());
    let begun = Instant::now();
    while !is(&endpointer, &server, EndpointState::Held) {
        assert!(begun.elapsed() < Duration::from_secs(10), "it is held");
        drop(timeout(Duration::from_millis(5), registry.0.due()).await);
    }
    call_often(&endpointer).await;
    reporter.set_service_status(SERVICE, ServingStatus::NotServing).await;
    until("it is out", || async {
        balanced(&endpointer).one(message("hello")).await.is_err()
            && is(&endpointer, &server, EndpointState::Down)
    })
    .await;
    sleep(Duration::from_secs(1)).await;
    reporter.set_service_status(SERVICE, ServingStatus::Serving).await;
    until("it is back", || async { balanced(&endpointer).one(message("hello")).await.is_ok() })
        .await;
    call_often(&endpointer).await;
}

/// Since when each open connection is open.
type Open = Arc<Mutex<HashMap<usize, Instant>>>;

/// Passes connections on to `server`.
async fn observed(server: SocketAddr, tasks: &mut JoinSet<()>) -> (Instance, Open) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let open = Open::default();
    let opened = Arc::clone(&open);
    tasks.spawn(async move {
        let mut pairs = JoinSet::new();
        for n in 0.. {
            let (mut inner, _) = listener.accept().await.expect("accepts");
            let opened = Arc::clone(&opened);
            opened.lock().expect("no panic").insert(n, Instant::now());
            pairs.spawn(async move {
                let mut outer = TcpStream::connect(server).await.expect("loopback");
                drop(copy_bidirectional(&mut inner, &mut outer).await);
                opened.lock().expect("no panic").remove(&n);
            });
        }
    });
    (Instance::new(address.ip().to_string(), address.port()), open)
}

#[tokio::test]
async fn health_stream_moves_on_at_the_age_of_connections() {
    let (server, reporter) = server_that_says(ServingStatus::Serving).await;
    let mut tasks = JoinSet::new();
    let (instance, open) = observed(server.address, &mut tasks).await;
    let http = HttpFactory::new().max_age(Duration::from_millis(300));
    let factory = GrpcFactory::over(http).health(SERVICE);
    let endpointer = Endpointer::new(&FixedInstancer::new([instance]), factory);
    endpointer.ready(Duration::from_secs(10)).await.expect("it serves");
    let first = *open.lock().expect("no panic").values().min().expect("a connection");
    until("the first connection is closed", || async {
        balanced(&endpointer).one(message("hello")).await.expect("it serves");
        open.lock().expect("no panic").values().all(|since| *since > first)
    })
    .await;
    // The stream of now reports.
    reporter.set_service_status(SERVICE, ServingStatus::NotServing).await;
    until("it is out", || async { balanced(&endpointer).one(message("hello")).await.is_err() })
        .await;
}

/// Not two ages, whichever of them ends first by chance.
#[tokio::test]
async fn health_stream_keeps_no_connection_for_another_age() {
    let (server, _reporter) = server_that_says(ServingStatus::Serving).await;
    let mut tasks = JoinSet::new();
    let mut all = Vec::new();
    for _ in 0..10 {
        let (instance, open) = observed(server.address, &mut tasks).await;
        let http = HttpFactory::new().max_age(Duration::from_secs(3));
        let factory = GrpcFactory::over(http).health(SERVICE);
        let endpointer = Endpointer::new(&FixedInstancer::new([instance]), factory);
        endpointer.ready(Duration::from_secs(10)).await.expect("it serves");
        all.push((endpointer, open));
    }
    sleep(Duration::from_millis(4_500)).await;
    for (_endpointer, open) in &all {
        let open = open.lock().expect("no panic");
        assert!(!open.is_empty() && !open.contains_key(&0), "{open:?}");
    }
}
