//! Time limits and outcomes of the whole stack, over HTTP/1.1 and HTTP/2.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::BodyExt;
use tokio::time::{Instant, advance, pause, resume, sleep, timeout};
use tower::{ServiceBuilder, ServiceExt};
use tower_sd_balance::{
    Balance, BalanceLayer, CallerDeadline, Endpointer, FixedInstancer, Instance, NoInstances,
    NoInstancesReason, Retry, RetryLayer, RetryPolicy, RoundRobin, Served,
};

use super::{
    Sent, dead, get,
    http2::server::Server as Http2Server,
    server::{Peer, Server},
};
use crate::{HttpEndpoint, HttpErrorKind, HttpFactory, HttpProtocol, HttpVersion};

const BOUND: Duration = Duration::from_secs(20);
/// Of a request, by a clock that is moved on.
const LIMIT: Duration = Duration::from_secs(5);
const VERSIONS: [HttpVersion; 2] = [HttpVersion::Http1, HttpVersion::Http2];

type Endpoints = Endpointer<HttpEndpoint<Sent>>;

async fn endpointer(
    version: HttpVersion,
    instances: impl IntoIterator<Item = Instance>,
) -> Endpoints {
    let factory = HttpFactory::<Sent>::new().version(version);
    let endpointer = Endpointer::new(&FixedInstancer::new(instances), factory);
    endpointer.ready(BOUND).await.expect("endpoints");
    endpointer
}

fn stack(
    endpointer: &Endpoints,
    policy: RetryPolicy,
) -> Retry<Balance<HttpEndpoint<Sent>>, HttpProtocol> {
    ServiceBuilder::new()
        .layer(RetryLayer::new(policy.protocol(HttpProtocol::new())))
        .layer(BalanceLayer::new(RoundRobin::new()))
        .service(endpointer.clone())
}

#[tokio::test]
async fn deadline_of_the_request_bounds_a_stalled_body() {
    let one = Server::start(async |mut peer| {
        while peer.request().await.is_some() {
            peer.write("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\na").await;
            peer.closed().await;
        }
    })
    .await;
    let two = Http2Server::start(100, async |_, mut reply| {
        let mut stream = reply.send_response(Response::new(()), false).expect("a stream");
        stream.send_data(Bytes::from("a"), false).expect("a stream");
        std::future::pending::<()>().await;
    })
    .await;
    for (instance, version) in [one.instance(), two.instance()].into_iter().zip(VERSIONS) {
        let endpointer = endpointer(version, [instance]).await;
        let client = stack(&endpointer, RetryPolicy::new().timeout(LIMIT));
        let begun = Instant::now();
        let mut body = client.oneshot(get("/")).await.expect("a head").into_body();
        let first = body.frame().await.expect("a frame").expect("in time");
        assert_eq!(first.into_data().expect("data"), "a");
        pause();
        let frame = timeout(BOUND, body.frame()).await.expect("in time").expect("an error");
        assert_eq!(frame.map(drop).expect_err("late").kind(), HttpErrorKind::BodyTimeout);
        let late = begun.elapsed().saturating_sub(LIMIT);
        assert!(begun.elapsed() >= LIMIT && late <= Duration::from_millis(20), "{late:?}");
        resume();
        let outcomes = endpointer.report().endpoints[0].outcomes;
        assert_eq!((outcomes.timed_out, outcomes.success), (1, 0));
    }
}

/// Sends its head and one letter, and then a letter each time that there is room.
async fn endless(version: HttpVersion) -> (Instance, Box<dyn Send>) {
    let letters = || "4\r\naaaa\r\n".repeat(1000);
    if version == HttpVersion::Http1 {
        let server = Server::start(move |mut peer: Peer| async move {
            peer.request().await;
            peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            peer.write(&letters()).await;
            peer.closed().await;
        })
        .await;
        return (server.instance(), Box::new(server));
    }
    let server = Http2Server::start(100, async |_, mut reply| {
        let mut stream = reply.send_response(Response::new(()), false).expect("a stream");
        for _ in 0..1000 {
            stream.send_data(Bytes::from("aaaa"), false).expect("a stream");
        }
        std::future::pending::<()>().await;
    })
    .await;
    (server.instance(), Box::new(server))
}

/// The deadline ends the body, and the instance has done its work.
#[tokio::test]
async fn slow_reader_of_a_ready_body_is_no_timeout_of_the_instance() {
    for version in VERSIONS {
        let (instance, _server) = endless(version).await;
        let endpointer = endpointer(version, [instance]).await;
        let client = stack(&endpointer, RetryPolicy::new().timeout(LIMIT));
        let mut body = client.oneshot(get("/")).await.expect("a head").into_body();
        body.frame().await.expect("a frame").expect("in time");
        pause();
        advance(LIMIT).await;
        resume();
        let frame = timeout(BOUND, body.frame()).await.expect("in time").expect("an error");
        assert_eq!(frame.map(drop).expect_err("late").kind(), HttpErrorKind::BodyTimeout);
        let outcomes = endpointer.report().endpoints[0].outcomes;
        assert_eq!((outcomes.timed_out, outcomes.success), (0, 1), "{version:?}");
    }
}

/// Neither by its own timer nor by the 504 of a server that has the same deadline.
#[tokio::test]
async fn haste_of_the_caller_is_no_timeout_of_the_instance() {
    let one = Server::start(async |mut peer| {
        peer.request().await;
        peer.write("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\na").await;
        peer.closed().await;
    })
    .await;
    let late = Server::start(async |mut peer| {
        peer.request().await;
        sleep(Duration::from_millis(999)).await;
        peer.write("HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 0\r\n\r\n").await;
        peer.closed().await;
    })
    .await;
    for (server, instance) in [("stalls", one.instance()), ("late", late.instance())] {
        let endpointer = endpointer(HttpVersion::Http1, [instance]).await;
        let client = stack(&endpointer, RetryPolicy::new().max_attempts(1));
        let caller = CallerDeadline::new(Instant::now() + Duration::from_secs(1));
        // Its own timer, or the server's answer.
        if let Ok(response) = caller.scope(client.oneshot(get("/"))).await {
            drop(timeout(BOUND, response.into_body().collect()).await.expect("in time"));
        }
        let endpoint = &endpointer.report().endpoints[0];
        assert_eq!((endpoint.failures, endpoint.outcomes.cancelled), (0, 1), "{server}");
    }
}

#[tokio::test]
async fn status_counts_though_its_body_is_not_read() {
    for (status, failures, success) in [("503 Service Unavailable", 1, 0), ("200 OK", 0, 1)] {
        let server = Server::start(move |mut peer: Peer| async move {
            peer.request().await;
            peer.write(&format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\n\r\nbu")).await;
            peer.closed().await;
        })
        .await;
        let endpointer = endpointer(HttpVersion::Http1, [server.instance()]).await;
        let client = stack(&endpointer, RetryPolicy::new());
        drop(client.oneshot(get("/")).await.expect("a head"));
        let endpoint = &endpointer.report().endpoints[0];
        assert_eq!((endpoint.failures, endpoint.outcomes.success), (failures, success), "{status}");
    }
}

/// Nothing was sent, so a request of any method is tried everywhere, and fails in one wait.
#[tokio::test]
async fn service_that_refuses_everywhere_fails_in_one_wait() {
    for version in VERSIONS {
        let endpointer = endpointer(version, [dead(), dead(), dead()]).await;
        let policy = RetryPolicy::new().per_try_timeout(Duration::from_millis(300));
        let client = stack(&endpointer, policy);
        let mut order = get("/");
        *order.method_mut() = Method::POST;
        let begun = Instant::now();
        let error = client.oneshot(order).await.map(drop).expect_err("no instance");
        let chain = std::iter::successors(error.source(), |error| error.source());
        let none = chain.filter_map(|error| error.downcast_ref::<NoInstances>()).next();
        assert_eq!(none.expect("its reason").reason(), NoInstancesReason::Refused);
        assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
        let refusals = endpointer.report().endpoints.iter().filter(|e| e.refusals > 0).count();
        assert_eq!(refusals, 3, "each was tried");
    }
}

/// A server that accepts and does not answer: each of its attempts is a counted time-out.
#[tokio::test]
async fn hanging_instance_of_three_costs_one_timeout_a_request() {
    let hanging = Server::start(async |mut peer| {
        peer.request().await;
        peer.closed().await;
    })
    .await;
    let (one, two) = (Server::polite().await, Server::polite().await);
    let instances = [hanging.instance(), one.instance(), two.instance()];
    one_timeout_a_request(HttpVersion::Http1, instances).await;
    let hanging = Http2Server::start(100, async |_, reply| {
        std::future::pending::<()>().await;
        drop(reply);
    })
    .await;
    let (one, two) = (Http2Server::polite(100).await, Http2Server::polite(100).await);
    let instances = [hanging.instance(), one.instance(), two.instance()];
    one_timeout_a_request(HttpVersion::Http2, instances).await;
}

/// The first instance hangs.
async fn one_timeout_a_request(version: HttpVersion, instances: [Instance; 3]) {
    let id = instances[0].id().clone();
    let endpointer = endpointer(version, instances).await;
    let policy = RetryPolicy::new()
        .per_try_timeout(Duration::from_secs(2))
        .backoff(Duration::ZERO, Duration::ZERO);
    let client = stack(&endpointer, policy);
    for _ in 0..9 {
        let begun = Instant::now();
        let response = client.clone().oneshot(get("/")).await.expect("answers");
        // One try's time, and 50 ms on an idle machine.
        assert!(begun.elapsed() < Duration::from_secs(3), "{version:?}: {:?}", begun.elapsed());
        let served: &Served = response.extensions().get().expect("its instance");
        assert!(served.attempts() <= 2, "{version:?}: {}", served.attempts());
        response.into_body().collect().await.expect("whole");
    }
    let report = endpointer.report().endpoints;
    let hung = report.iter().find(|endpoint| *endpoint.instance.id() == id).expect("a member");
    assert!(hung.picks >= 1);
    assert_eq!((hung.outcomes.timed_out, hung.failures), (hung.picks, hung.picks));
    assert_eq!(report.iter().map(|endpoint| endpoint.outcomes.success).sum::<u64>(), 9);
}
