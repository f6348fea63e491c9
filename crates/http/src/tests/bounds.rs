//! No more connections than allowed, and whose turn it is.

use std::time::Duration;

use futures_util::{FutureExt, future::join_all};
use http::Response;
use http_body_util::BodyExt;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::ServiceExt;

use super::{Sent, dead, endpoint_of, fetch, get, send, server::Server};
use crate::{ConnectionLimit, HttpEndpoint, HttpFactory, InFlightBody, ResponseBody};

async fn two_at_most() -> (Server, HttpEndpoint<Sent>) {
    let server = Server::polite().await;
    let endpoint = endpoint_of(HttpFactory::new().max_http1_connections(2), &server);
    (server, endpoint)
}

#[tokio::test]
async fn requests_beyond_the_bound_wait_and_all_are_served() {
    let (server, endpoint) = two_at_most().await;
    for _ in 0..10 {
        let requests = join_all((0..50).map(|_| fetch(&endpoint, get("/"))));
        let outcomes = timeout(BOUND, requests).await.expect("in time");
        assert!(outcomes.into_iter().all(|outcome| outcome.is_ok()));
    }
    assert_eq!(server.n_accepted(), 2);
}

#[tokio::test]
async fn connections_to_all_instances_are_bounded_and_each_has_one() {
    let limit = ConnectionLimit::new(3);
    let factory = HttpFactory::new().connection_limit(limit.clone());
    let (one, other) = (Server::polite().await, Server::polite().await);
    let first = endpoint_of(factory.clone(), &one);
    let burst = async |endpoint: &HttpEndpoint<Sent>| {
        let all = join_all((0..20).map(|_| fetch(endpoint, get("/"))));
        assert!(timeout(BOUND, all).await.expect("in time").iter().all(Result::is_ok));
    };
    burst(&first).await;
    assert_eq!((one.n_accepted(), limit.open()), (3, 3));
    let n_refused = limit.refused();
    assert!(n_refused > 0);
    let second = endpoint_of(factory, &other);
    burst(&second).await;
    assert_eq!((other.n_accepted(), limit.open()), (1, 4), "one in any case");
    assert!(limit.refused() > n_refused);
    let mut waiting = JoinSet::new();
    let busy = send(&second, get("/")).await.expect("its only one");
    for _ in 0..3 {
        let mut endpoint = second.clone();
        waiting.spawn(async move { endpoint.ready().await.map(drop) });
    }
    sleep(A_WHILE).await;
    assert_eq!(limit.open(), 4, "they wait for places");
    drop(first);
    while let Some(ready) = timeout(BOUND, waiting.join_next()).await.expect("places are free") {
        ready.expect("no panic").expect("connected");
    }
    drop(busy);
    let freed = async {
        while limit.open() > 3 {
            sleep(A_WHILE / 10).await;
        }
    };
    timeout(BOUND, freed).await.expect("its connections close");
    burst(&second).await;
    assert!(other.n_accepted() >= 3 && limit.open() <= 3, "{limit:?}");
}

#[tokio::test]
async fn place_of_a_failed_dial_is_free_again() {
    let limit = ConnectionLimit::new(1);
    let factory = HttpFactory::<Sent>::new().connection_limit(limit.clone());
    let mut endpoint = factory.endpoint(&dead()).expect("an address");
    for _ in 0..3 {
        assert!(timeout(BOUND, endpoint.ready()).await.expect("in time").is_err());
    }
    let freed = async {
        while limit.open() > 0 {
            sleep(A_WHILE / 10).await;
        }
    };
    timeout(BOUND, freed).await.expect("nothing is open");
}

#[tokio::test]
async fn connection_is_free_when_its_body_has_ended_or_is_dropped() {
    let (server, endpoint) = two_at_most().await;
    let (first, second) = (answer(&endpoint).await, answer(&endpoint).await);
    let mut third = endpoint.clone();
    assert!(timeout(A_WHILE, third.ready()).await.is_err(), "two are busy");
    first.into_body().collect().await.expect("whole");
    timeout(BOUND, third.ready()).await.expect("in time").expect("connects");
    assert_eq!(server.n_accepted(), 2);
    let mut fourth = endpoint.clone();
    assert!(timeout(A_WHILE, fourth.ready()).await.is_err(), "two are busy");
    drop(second);
    timeout(BOUND, fourth.ready()).await.expect("in time").expect("connects");
}

#[tokio::test]
async fn who_gives_up_waiting_takes_nobodys_turn() {
    let (server, endpoint) = two_at_most().await;
    let (first, second) = (answer(&endpoint).await, answer(&endpoint).await);
    for _ in 0..5 {
        assert!(endpoint.clone().ready().now_or_never().is_none(), "two are busy");
    }
    drop(second);
    let mut patient = endpoint.clone();
    timeout(BOUND, patient.ready()).await.expect("in time").expect("connects");
    drop((patient, first));
    assert_eq!(timeout(BOUND, fetch(&endpoint, get("/"))).await.expect("in time").unwrap(), "ok");
    // A short body that was dropped is read to its end, if that comes within a moment.
    assert!((2..=3).contains(&server.n_accepted()), "{}", server.n_accepted());
}

#[tokio::test]
async fn callers_that_give_up_share_one_dial() {
    let (server, endpoint) = two_at_most().await;
    for _ in 0..5 {
        assert!(endpoint.clone().ready().now_or_never().is_none(), "nothing is connected yet");
    }
    sleep(A_WHILE).await;
    assert_eq!(timeout(BOUND, fetch(&endpoint, get("/"))).await.expect("in time").unwrap(), "ok");
    assert_eq!(server.n_accepted(), 1);
}

#[tokio::test]
async fn connect_that_fails_frees_its_place() {
    let factory = HttpFactory::<Sent>::new().max_http1_connections(1);
    let endpoint = factory.endpoint(&dead()).expect("an address");
    for _ in 0..3 {
        timeout(BOUND, endpoint.clone().ready()).await.expect("in time").expect_err("refused");
    }
}

async fn answer(endpoint: &HttpEndpoint<Sent>) -> Response<InFlightBody<ResponseBody<Sent>>> {
    timeout(BOUND, send(endpoint, get("/"))).await.expect("in time").expect("answers")
}

const A_WHILE: Duration = Duration::from_millis(50);
const BOUND: Duration = Duration::from_secs(10);
