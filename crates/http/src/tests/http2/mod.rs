//! HTTP/2 with prior knowledge, over real sockets.

pub(crate) mod failures;
pub(crate) mod server;

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Request, Response, header::HOST};
use http_body_util::BodyExt;
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tower::ServiceExt;

use super::{Sent, fetch, get, lifetime::alive_tasks_become, send};
use crate::{HttpEndpoint, HttpErrorKind, HttpFactory, HttpVersion};
use server::{Server, answer};

fn http2() -> HttpFactory<Sent> {
    HttpFactory::new().version(HttpVersion::Http2)
}

fn endpoint(server: &Server) -> HttpEndpoint<Sent> {
    http2().endpoint(&server.instance()).expect("an address on loopback")
}

/// Answers when it is let.
async fn gated(max_streams: u32) -> (Server, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let server = Server::start(max_streams, move |_, reply| {
        let opened = Arc::clone(&opened);
        async move {
            opened.acquire().await.expect("open").forget();
            answer(reply, "ok");
        }
    })
    .await;
    (server, gate)
}

#[tokio::test]
async fn requests_share_one_connection() {
    let server = Server::polite(100).await;
    let endpoint = endpoint(&server);
    let requests = (0..100).map(|_| fetch(&endpoint, get("/")));
    for outcome in join_all(requests).await {
        assert_eq!(outcome.expect("answers"), "ok");
    }
    assert_eq!(server.n_accepted(), 1);
}

#[tokio::test]
async fn another_connection_is_opened_when_all_streams_are_in_use() {
    let (server, gate) = gated(2).await;
    let endpoint = endpoint(&server);
    let requests = join_all((0..5).map(|_| fetch(&endpoint, get("/"))));
    let opened = async {
        while server.n_accepted() < 3 {
            sleep(Duration::from_millis(5)).await;
        }
        gate.add_permits(5);
    };
    let (outcomes, ()) = timeout(Duration::from_secs(5), async { tokio::join!(requests, opened) })
        .await
        .expect("in time");
    assert!(outcomes.into_iter().all(|outcome| outcome.is_ok()));
    assert_eq!(server.n_accepted(), 3);
}

#[tokio::test]
async fn beyond_the_bound_of_connections_a_request_waits_for_a_place() {
    let (server, gate) = gated(2).await;
    let factory = http2().max_http2_connections(1);
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    let requests = join_all((0..6).map(|_| fetch(&endpoint, get("/"))));
    let mut late = endpoint.clone();
    let let_in = async {
        sleep(Duration::from_millis(50)).await;
        let waits = timeout(Duration::from_millis(50), late.ready()).await;
        assert!(waits.is_err());
        gate.add_permits(6);
    };
    let both = async { tokio::join!(requests, let_in) };
    let (outcomes, ()) = timeout(Duration::from_secs(5), both).await.expect("in time");
    assert!(outcomes.into_iter().all(|outcome| outcome.is_ok()));
    assert_eq!(server.n_accepted(), 1);
    drop(late);
    gate.add_permits(1);
    assert_eq!(fetch(&endpoint, get("/")).await.expect("answers"), "ok");
}

#[tokio::test]
async fn our_own_bound_of_streams_counts_too() {
    let (server, gate) = gated(100).await;
    let factory = http2().max_streams(1);
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    let requests = join_all((0..3).map(|_| fetch(&endpoint, get("/"))));
    let opened = async {
        while server.n_accepted() < 3 {
            sleep(Duration::from_millis(5)).await;
        }
        gate.add_permits(3);
    };
    let both = async { tokio::join!(requests, opened) };
    let (outcomes, ()) = timeout(Duration::from_secs(5), both).await.expect("in time");
    assert!(outcomes.into_iter().all(|outcome| outcome.is_ok()));
}

#[tokio::test]
async fn body_dropped_early_ends_its_stream_and_not_the_connection() {
    let server = Server::start(1, async |request, mut reply| {
        let mut stream = reply.send_response(Response::new(()), false).expect("a stream");
        if request.uri().path() == "/stuck" {
            std::future::poll_fn(|cx| stream.poll_reset(cx)).await.expect("reset");
        } else {
            stream.send_data(Bytes::from("ok"), true).expect("a stream");
        }
    })
    .await;
    let endpoint = endpoint(&server);
    for _ in 0..5 {
        drop(send(&endpoint, get("/stuck")).await.expect("begins"));
        let next = timeout(Duration::from_secs(5), fetch(&endpoint, get("/"))).await;
        assert_eq!(next.expect("in time").expect("answers"), "ok");
    }
    assert_eq!(server.n_accepted(), 1);
}

/// Each response has a window of its own, and all share that of the connection.
#[tokio::test]
async fn responses_that_are_not_read_stop_no_other_request() {
    let server = Server::start(100, async |request, mut reply| {
        let is_large = request.uri().path() == "/large";
        let mut stream = reply.send_response(Response::new(()), false).expect("a stream");
        let body = vec![b'.'; if is_large { 4 << 20 } else { 2 }];
        stream.send_data(body.into(), true).expect("a stream");
    })
    .await;
    let endpoint = endpoint(&server);
    let unread = join_all((0..10).map(|_| send(&endpoint, get("/large")))).await;
    for _ in 0..10 {
        let small = timeout(Duration::from_secs(5), fetch(&endpoint, get("/"))).await;
        assert_eq!(small.expect("in time").expect("answers"), "..");
        sleep(Duration::from_millis(10)).await;
    }
    assert!(unread.iter().all(Result::is_ok));
    assert_eq!(server.n_accepted(), 1);
}

/// h2 counts what their frames cost beside the data, and closes the connection.
#[tokio::test]
async fn many_small_frames_that_are_not_read_break_no_other_request() {
    const N: usize = 20_000;
    let server = Server::start(100, async |request, mut reply| {
        let n = if request.uri().path() == "/many" { N } else { 1 };
        let mut stream = reply.send_response(Response::new(()), false).expect("a stream");
        for i in 1..=n {
            stream.send_data(Bytes::from_static(b"frame"), i == n).expect("a stream");
        }
    })
    .await;
    let endpoint = endpoint(&server);
    let many = send(&endpoint, get("/many")).await.expect("begins");
    sleep(Duration::from_millis(500)).await;
    assert_eq!(fetch(&endpoint, get("/")).await.expect("answers"), "frame");
    let body = many.into_body().collect().await.expect("whole").to_bytes();
    assert_eq!((body.len(), server.n_accepted()), (5 * N, 1));
}

#[tokio::test]
async fn trailers_pass_and_the_place_is_free_after_them() {
    let server = Server::start(1, async |_, mut reply| {
        let mut stream = reply.send_response(Response::new(()), false).expect("a stream");
        stream.send_data(Bytes::from("ok"), false).expect("a stream");
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        stream.send_trailers(trailers).expect("a stream");
    })
    .await;
    let factory = http2().max_http2_connections(1);
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    for _ in 0..3 {
        let body = send(&endpoint, get("/")).await.expect("begins").into_body();
        let whole = body.collect().await.expect("whole");
        let status = whole.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
        assert_eq!(status.expect("trailers"), "0");
        assert_eq!(whole.to_bytes(), "ok");
    }
}

#[tokio::test]
async fn idle_connection_is_closed_after_its_time() {
    let server = Server::polite(100).await;
    let factory = http2().idle_timeout(Duration::from_millis(100));
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    for n in 1..=2 {
        fetch(&endpoint, get("/")).await.expect("answers");
        assert_eq!((server.n_accepted(), server.n_open()), (n, 1));
        no_connection_is_open(&server).await;
    }
}

#[tokio::test]
async fn connections_and_their_tasks_end_with_the_endpoint() {
    let server = Server::polite(100).await;
    let before = Handle::current().metrics().num_alive_tasks();
    let factory = http2();
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    fetch(&endpoint, get("/")).await.expect("answers");
    drop(endpoint);
    alive_tasks_become(before).await;
    assert_eq!(server.n_open(), 0);
}

#[tokio::test]
async fn body_is_read_to_its_end_after_everything_else_is_gone() {
    let server = Server::start(100, async |_, mut reply| {
        let mut stream = reply.send_response(Response::new(()), false).expect("a stream");
        sleep(Duration::from_millis(100)).await;
        stream.send_data(Bytes::from("late"), true).expect("a stream");
    })
    .await;
    let before = Handle::current().metrics().num_alive_tasks();
    let endpoint = endpoint(&server);
    let response = send(&endpoint, get("/")).await.expect("begins");
    drop(endpoint);
    assert_eq!(response.into_body().collect().await.expect("whole").to_bytes(), "late");
    alive_tasks_become(before).await;
}

#[tokio::test]
async fn close_waits_for_every_connection_whatever_it_carries() {
    let server = Server::start(1, async |_, mut reply| {
        let _stream = reply.send_response(Response::new(()), false).expect("a stream");
        pending::<()>().await;
    })
    .await;
    let before = Handle::current().metrics().num_alive_tasks();
    let factory = http2().max_http2_connections(1);
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    let response = send(&endpoint, get("/")).await.expect("begins");
    let mut waiting = endpoint.clone();
    let both = async { tokio::join!(waiting.ready(), factory.close()) };
    let (refused, ()) = timeout(Duration::from_secs(5), both).await.expect("ends");
    assert_eq!(refused.map(drop).expect_err("closed").kind(), HttpErrorKind::Connect);
    response.into_body().collect().await.map(drop).expect_err("closed");
    send(&endpoint, get("/")).await.map(drop).expect_err("closed");
    alive_tasks_become(before).await;
}

#[tokio::test]
async fn server_sees_the_service_or_the_host_header_as_authority() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let server = Server::start(100, move |request, reply| {
        let host = request.headers().contains_key(HOST);
        sink.lock().expect("alive").push((request.uri().to_string(), host));
        answer(reply, "ok");
        async {}
    })
    .await;
    let endpoint = endpoint(&server);
    fetch(&endpoint, get("/a?b=c")).await.expect("answers");
    let named = Request::get("/a").header(HOST, "mine").body(Sent::default());
    fetch(&endpoint, named.expect("a valid request")).await.expect("answers");
    fetch(&endpoint, Request::get("/a").body(Sent::default()).expect("a valid request"))
        .await
        .expect("answers");
    let instance = server.instance();
    let wanted = [
        ("http://arithmetic/a?b=c".to_owned(), false),
        ("http://mine/a".to_owned(), false),
        (format!("http://{instance}/a"), false),
    ];
    assert_eq!(*seen.lock().expect("alive"), wanted);
}

async fn no_connection_is_open(server: &Server) {
    let closed = async {
        while server.n_open() != 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), closed).await.expect("closed in time");
}
