use std::{future::ready, time::Duration};

use futures_util::{StreamExt, stream};
use http::{Request, StatusCode};
use tower::{Service, ServiceBuilder, ServiceExt, timeout::TimeoutLayer};
use tower_sd_balance::{
    BalanceLayer, BoxError, EjectionPolicy, EndpointState, Endpointer, EndpointerConfig,
    FactoryExt, FixedInstancer, RetryError, RetryLayer, RetryPolicy, RoundRobin,
};
use tower_sd_http::{HttpFactory, HttpProtocol, Idempotent};
use tower_sd_testkit::script::{Reply, Script};

use super::{
    Answer, Sent, balanced, dead, dying, endpointer, fetch, get, instance, polite, post, retried,
};

#[tokio::test]
async fn refused_connects_cost_no_request_while_one_instance_lives() {
    let live = polite().await;
    let endpointer = endpointer([dead(), instance(&live), dead()]);
    let client = balanced(&endpointer);
    assert_eq!(n_failed(&client, 10_000).await, 0);
    assert_eq!(live.received().len(), 10_000);
    let report = endpointer.report();
    let down = report.endpoints.iter().filter(|e| e.state == EndpointState::Down);
    assert_eq!(down.count(), 2, "{report:?}");
}

#[tokio::test]
async fn one_retry_hides_one_of_two_that_dies_with_every_request() {
    let (good, bad) = (polite().await, dying().await);
    let instancer = FixedInstancer::new([instance(&good), instance(&bad)]);
    // An ejected one would soon be left alone, and nothing would have to be hidden.
    let config = EndpointerConfig::new().ejection(EjectionPolicy::off());
    let endpointer = Endpointer::with_config(&instancer, HttpFactory::new(), config);
    let client = retried(&endpointer, HttpProtocol::new());
    assert_eq!(n_failed(&client, 1_000).await, 0);
    assert_eq!(good.received().len(), 1_000);
    // While it connects again, requests go to the other.
    assert!(bad.received().len() > 20, "{}", bad.received().len());
}

#[tokio::test]
async fn instance_that_dies_with_every_request_is_soon_left_alone() {
    let (good, bad) = (polite().await, dying().await);
    let client = retried(&endpointer([instance(&good), instance(&bad)]), HttpProtocol::new());
    assert_eq!(n_failed(&client, 10_000).await, 0);
    assert_eq!(good.received().len(), 10_000);
    // Those on their way when the fifth failed are among them.
    assert!((5..100).contains(&bad.received().len()), "{}", bad.received().len());
}

#[tokio::test]
async fn post_that_may_have_been_done_is_repeated_on_demand_only() {
    let bad = dying().await;
    let endpointer = endpointer([instance(&bad)]);
    let client = retried(&endpointer, HttpProtocol::new());
    let error = fetch(&client, post(Sent::from("one"))).await.expect_err("died");
    let error: &RetryError = error.downcast_ref().expect("a retry error");
    assert_eq!(error.attempts().len(), 1);
    assert_eq!(bad.received().len(), 1);

    let mut vouched = post(Sent::from("two"));
    vouched.extensions_mut().insert(Idempotent);
    fetch(&client, vouched).await.expect_err("died twice");
    let bodies: Vec<_> = bad.received().into_iter().map(|received| received.body).collect();
    assert_eq!(bodies, ["one", "two", "two"]);
}

#[tokio::test]
async fn instance_that_is_unavailable_is_passed_over_on_demand() {
    let (good, bad) = (polite().await, unavailable().await);
    let endpointer = endpointer([instance(&good), instance(&bad)]);
    let client = retried(&endpointer, HttpProtocol::new().repeat_unavailable());
    for _ in 0..100 {
        assert_eq!(fetch(&client, get()).await.expect("repeated"), "ok");
    }
    assert!(!bad.received().is_empty());
}

#[tokio::test]
async fn last_answer_is_the_callers_whatever_its_status() {
    let bad = unavailable().await;
    let endpointer = endpointer([instance(&bad)]);
    let client = retried(&endpointer, HttpProtocol::new().repeat_unavailable());
    let answer = client.oneshot(get()).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(bad.received().len(), 2);
}

#[tokio::test]
async fn layer_goes_around_each_endpoint() {
    let hanging = Script::answering(|_| Reply::never()).await.expect("loopback");
    let good = polite().await;
    let instancer = FixedInstancer::new([instance(&hanging), instance(&good)]);
    let layer = TimeoutLayer::new(Duration::from_millis(100));
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::new().protocol(HttpProtocol::new())))
        .layer(BalanceLayer::new(RoundRobin::new()))
        .service(Endpointer::new(&instancer, HttpFactory::<Sent>::new().layer(layer)));
    for _ in 0..6 {
        assert_eq!(fetch(&client, get()).await.expect("timed out and repeated"), "ok");
    }
    assert!(!hanging.received().is_empty());
}

async fn unavailable() -> Script {
    Script::answering(|_| Reply::new(503)).await.expect("loopback")
}

/// Sends `n` requests, 32 concurrently, and counts those without an answer.
async fn n_failed<S>(client: &S, n: usize) -> usize
where
    S: Service<Request<Sent>, Response = Answer<Sent>, Error = BoxError> + Clone,
{
    let outcomes = stream::iter(0..n).map(|_| fetch(client, get())).buffer_unordered(32);
    outcomes.filter(|outcome| ready(outcome.is_err())).count().await
}
