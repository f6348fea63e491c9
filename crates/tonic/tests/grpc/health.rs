//! The health that an instance reports by `grpc.health.v1`.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower_sd_balance::{EndpointState, Endpointer, EndpointerConfig, FixedInstancer, Instance};
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
