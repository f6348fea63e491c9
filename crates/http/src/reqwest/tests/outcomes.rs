//! Whose failure the end of a request is.

use std::{
    error::Error, future::poll_fn, iter::successors, sync::atomic::Ordering, time::Duration,
};

use ::reqwest::{Body, Client, ClientBuilder, RequestBuilder};
use bytes::Bytes;
use futures_util::stream;
use h2::Reason;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::time::{Instant, advance, pause, resume, timeout};
use tower::ServiceExt;
use tower_sd_balance::{BoxError, FixedInstancer, Instance, RetryPolicy, Served};

use super::{client, dead};
use crate::{
    ClientErrorKind, HttpError, HttpErrorKind,
    reqwest::ReqwestClient,
    tests::{
        http2::{
            failures::{BEFORE_THE_FIRST, THE_FIRST, going_away},
            server::{Server as Http2Server, answer},
        },
        server::Server,
    },
};

const BOUND: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(5);

fn orders(
    instance: Instance,
    change: impl FnOnce(ClientBuilder) -> ClientBuilder,
    policy: RetryPolicy,
) -> ReqwestClient {
    ReqwestClient::builder(FixedInstancer::new([instance]))
        .client(|_| change(client()))
        .retry(|_| policy.protocol(crate::HttpProtocol::new()))
        .build()
        .expect("a client")
}

fn kind_of(error: &(dyn Error + 'static)) -> HttpErrorKind {
    HttpError::find(error).expect("ours").kind()
}

/// Sends its head and a letter, and stays silent.
pub(super) async fn stalling() -> Server {
    Server::start(async |mut peer| {
        peer.request().await;
        peer.write("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\na").await;
        peer.closed().await;
    })
    .await
}

#[tokio::test]
async fn upload_that_its_sender_breaks_off_is_a_failure_of_the_caller() {
    let one = Server::polite().await;
    let two = Http2Server::start(100, async |request, reply| {
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.data().await {}
        drop(reply);
    })
    .await;
    for (instance, is_http2) in [(one.instance(), false), (two.instance(), true)] {
        let version = |client: ClientBuilder| match is_http2 {
            true => client.http2_prior_knowledge(),
            false => client,
        };
        let orders = orders(instance, version, RetryPolicy::new());
        let parts = stream::iter([
            Ok(Frame::data(Bytes::from_static(b"half of it"))),
            Err(BoxError::from("the client is gone")),
        ]);
        let request =
            orders.client().put("http://orders/").body(Body::wrap(StreamBody::new(parts)));
        let sent = timeout(BOUND, orders.send(request)).await.expect("in time");
        let error = sent.map(drop).expect_err("broken off");
        assert_eq!(kind_of(&error), HttpErrorKind::Request, "{error:?}");
        assert_eq!((error.kind(), error.status().as_u16()), (ClientErrorKind::Request, 400));
        let endpoint = &orders.report().endpoints[0];
        assert_eq!((endpoint.failures, endpoint.outcomes.cancelled), (0, 1));
    }
}

/// As over the endpoints of this crate.
#[tokio::test]
async fn server_learns_that_a_body_is_empty_or_comes() {
    let server = Server::echo().await;
    let orders = orders(server.instance(), |client| client, RetryPolicy::new());
    let told = async |request: RequestBuilder| {
        orders.send(request).await.expect("answers").text().await.expect("whole")
    };
    let client = orders.client();
    for request in [client.post("http://orders/"), client.put("http://orders/").body("")] {
        let bare = told(request).await;
        assert!(bare.contains("\r\ncontent-length: 0\r\n"), "{bare}");
    }
    let bare = told(client.get("http://orders/")).await;
    assert!(!bare.contains("content-length"), "{bare}");
    let parts = stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"query")))]);
    let sent = told(client.get("http://orders/").body(Body::wrap(StreamBody::new(parts)))).await;
    assert!(sent.ends_with("\r\n\r\nquery"), "{sent}");
}

/// As over the endpoints of this crate: what the server has not read is sent again.
#[tokio::test]
async fn request_that_http_2_refuses_is_sent_again() {
    for (reason, n_wanted) in [(Reason::REFUSED_STREAM, 2), (Reason::INTERNAL_ERROR, 1)] {
        let (server, n_seen) = Http2Server::resetting_the_first(reason).await;
        let orders =
            orders(server.instance(), ClientBuilder::http2_prior_knowledge, RetryPolicy::new());
        let order = orders.client().post("http://orders/").body("order");
        let sent = timeout(BOUND, orders.send(order)).await.expect("in time");
        assert_eq!(sent.is_ok(), n_wanted == 2, "{sent:?}");
        assert_eq!(n_seen.load(Ordering::SeqCst), n_wanted, "{reason:?}");
        let endpoint = &orders.report().endpoints[0];
        let counted = (endpoint.outcomes.not_sent, endpoint.failures);
        assert_eq!(counted, if n_wanted == 2 { (1, 0) } else { (0, 1) }, "{reason:?}");
    }
}

#[tokio::test]
async fn request_beyond_the_last_processed_one_is_unsent() {
    for (frames, kind) in
        [(BEFORE_THE_FIRST, HttpErrorKind::NotSent), (THE_FIRST, HttpErrorKind::Io)]
    {
        let server = going_away(frames).await;
        let policy = RetryPolicy::new().max_attempts(1);
        let orders = orders(server.instance(), ClientBuilder::http2_prior_knowledge, policy);
        let order = orders.client().post("http://orders/").body("order");
        let sent = timeout(BOUND, orders.send(order)).await.expect("in time");
        assert_eq!(kind_of(&sent.map(drop).expect_err("no answer")), kind);
    }
}

/// As that of a gateway which copies the length and streams another body.
#[tokio::test]
async fn body_shorter_than_its_length_is_a_failure_of_the_caller() {
    let server = Server::start(async |mut peer| while peer.request().await.is_some() {}).await;
    let orders = orders(server.instance(), |client| client, RetryPolicy::new());
    let parts = stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"half")))]);
    let request = orders.client().put("http://orders/").header("content-length", "10");
    let request = request.body(Body::wrap(StreamBody::new(parts)));
    let sent = timeout(BOUND, orders.send(request)).await.expect("in time");
    let error = sent.map(drop).expect_err("cut short");
    assert_eq!(kind_of(&error), HttpErrorKind::Request, "{error:?}");
    assert_eq!((error.attempts().len(), error.status().as_u16()), (1, 400));
    let endpoint = &orders.report().endpoints[0];
    assert_eq!((endpoint.failures, endpoint.outcomes.cancelled), (0, 1));
}

#[tokio::test]
async fn timeouts_of_the_inner_client_are_timeouts() {
    let (silent, stalling) = (
        Server::start(async |mut peer| {
            peer.request().await;
            peer.closed().await;
        })
        .await,
        stalling().await,
    );
    let policy = || RetryPolicy::new().max_attempts(1);
    let limit = Duration::from_secs(1);
    let head = orders(silent.instance(), |client| client.timeout(limit), policy());
    let sent = timeout(BOUND, head.send(head.client().get("http://orders/"))).await;
    let error = sent.expect("in time").map(drop).expect_err("silent");
    assert_eq!(kind_of(&error), HttpErrorKind::Timeout);
    assert_eq!((error.kind(), error.status().as_u16()), (ClientErrorKind::Timeout, 504));
    assert_eq!(head.report().endpoints[0].outcomes.timed_out, 1);

    let body = orders(stalling.instance(), |client| client.read_timeout(limit), policy());
    let response = body.send(body.client().get("http://orders/")).await.expect("a head");
    let error = timeout(BOUND, response.bytes()).await.expect("in time").expect_err("stalled");
    assert_eq!(kind_of(&error), HttpErrorKind::BodyTimeout);
    assert_eq!(body.report().endpoints[0].outcomes.timed_out, 1);
}

#[tokio::test]
async fn deadline_of_the_request_bounds_a_stalled_body() {
    let server = stalling().await;
    let orders = orders(server.instance(), |client| client, RetryPolicy::new().timeout(LIMIT));
    let begun = Instant::now();
    let mut response = orders.send(orders.client().get("http://orders/")).await.expect("a head");
    assert_eq!(response.chunk().await.expect("in time").expect("a letter"), "a");
    pause();
    let frame = timeout(BOUND, response.chunk()).await.expect("in time");
    assert_eq!(kind_of(&frame.expect_err("stalled")), HttpErrorKind::BodyTimeout);
    let late = begun.elapsed().saturating_sub(LIMIT);
    assert!(begun.elapsed() >= LIMIT && late <= Duration::from_millis(20), "{late:?}");
    resume();
    assert_eq!(orders.report().endpoints[0].outcomes.timed_out, 1);
}

#[tokio::test]
async fn slow_reader_of_a_ready_body_is_no_timeout_of_the_instance() {
    let server = stalling().await;
    let orders = orders(server.instance(), |client| client, RetryPolicy::new().timeout(LIMIT));
    let mut response = orders.send(orders.client().get("http://orders/")).await.expect("a head");
    response.chunk().await.expect("in time").expect("a letter");
    pause();
    advance(LIMIT).await;
    resume();
    let error = response.chunk().await.expect_err("late");
    assert_eq!(kind_of(&error), HttpErrorKind::BodyTimeout);
    let outcomes = orders.report().endpoints[0].outcomes;
    assert_eq!((outcomes.timed_out, outcomes.success), (0, 1));
}

#[tokio::test]
async fn response_that_is_over_is_whole_after_the_deadline() {
    let server = Server::start(async |mut peer| {
        while peer.request().await.is_some() {
            peer.write("HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    })
    .await;
    let orders = orders(server.instance(), |client| client, RetryPolicy::new().timeout(LIMIT));
    let response = orders.send(orders.client().get("http://orders/")).await.expect("a head");
    pause();
    advance(LIMIT).await;
    resume();
    assert_eq!(response.bytes().await.expect("whole"), "");
}

fn endless(client: &Client) -> RequestBuilder {
    let parts = stream::pending::<Result<Frame<Bytes>, BoxError>>();
    client.put("http://orders/upload").body(Body::wrap(StreamBody::new(parts)))
}

#[tokio::test]
async fn slow_sender_is_no_timeout_of_the_instance() {
    let server = Server::start(async |mut peer| {
        peer.head().await;
        peer.chunks(|_| {}).await;
    })
    .await;
    let policy = RetryPolicy::new().max_attempts(1).per_try_timeout(Duration::from_millis(300));
    let orders = orders(server.instance(), |client| client, policy);
    orders.send(endless(orders.client())).await.map(drop).expect_err("late");
    let endpoint = &orders.report().endpoints[0];
    assert_eq!((endpoint.failures, endpoint.outcomes.cancelled), (0, 1));
}

#[tokio::test]
async fn response_given_up_during_its_upload_ends_its_stream() {
    let server = Http2Server::start(1, async |request, mut reply| {
        if request.uri().path() != "/upload" {
            return answer(reply, "ok");
        }
        let mut stream = reply.send_response(http::Response::new(()), false).expect("a stream");
        poll_fn(|cx| stream.poll_reset(cx)).await.expect("a reset");
    })
    .await;
    let policy = RetryPolicy::new().max_attempts(1).per_try_timeout(BOUND);
    let orders = orders(server.instance(), ClientBuilder::http2_prior_knowledge, policy);
    drop(orders.send(endless(orders.client())).await.expect("begins"));
    let sent = orders.send(orders.client().get("http://orders/"));
    let response = timeout(BOUND, sent).await.expect("in time").expect("answers");
    assert_eq!(response.bytes().await.expect("whole"), "ok");
}

#[tokio::test]
async fn status_and_instance_of_a_response_are_known() {
    for (status, failures) in [(200, 0), (404, 0), (503, 1)] {
        let server = Server::start(move |mut peer| async move {
            peer.request().await;
            peer.write(&format!("HTTP/1.1 {status} Some\r\ncontent-length: 0\r\n\r\n")).await;
            peer.closed().await;
        })
        .await;
        let orders = orders(server.instance(), |client| client, RetryPolicy::new());
        let response = orders.send(orders.client().get("http://orders/")).await.expect("a head");
        let served = response.extensions().get::<Served>().expect("its instance");
        assert_eq!((served.instance(), served.attempts()), (server.instance().id(), 1));
        drop(response);
        let endpoint = &orders.report().endpoints[0];
        assert_eq!((endpoint.failures, endpoint.outcomes.failed_response), (failures, failures));
    }
}

#[tokio::test]
async fn errors_have_no_query() {
    let (dies, echo) =
        (Server::start(async |mut peer| drop(peer.request().await)).await, Server::echo().await);
    for instance in [dead(), dies.instance()] {
        let orders = orders(instance, |client| client, RetryPolicy::new().max_attempts(1));
        let request = orders.client().get("http://orders/a?token=hunter2");
        let error = orders.send(request).await.expect_err("fails");
        is_silent(&error);
    }
    let orders = orders(echo.instance(), |client| client, RetryPolicy::new());
    let error = orders.send(Client::get(orders.client(), "orders:/?token=hunter2")).await;
    is_silent(&error.expect_err("no host"));
    let silent = Server::start(async |mut peer| peer.closed().await).await;
    let factory = super::factory(orders.client());
    let endpoint = tower_sd_balance::Factory::make(&factory, silent.instance()).await;
    let (endpoint, limit) = (endpoint.expect("http"), Duration::from_millis(100));
    let request = orders.client().get("http://orders/?token=hunter2").timeout(limit);
    let error = endpoint.oneshot(request.build().expect("a request")).await.expect_err("late");
    is_silent(&error);
}

fn is_silent(error: &(dyn Error + 'static)) {
    let chain = successors(Some(error), |error| (*error).source());
    let shown: Vec<_> = chain.map(|error| format!("{error} {error:?}")).collect();
    assert!(!shown.concat().contains("hunter2"), "{shown:?}");
}
