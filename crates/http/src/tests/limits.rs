//! Large headers, and bodies that stall.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Sent, endpoint_of, fetch, get,
    http2::server::{Server as Http2Server, answer},
    send,
    server::{Peer, Server},
};
use crate::{HttpErrorKind, HttpFactory, HttpVersion};

const BOUND: Duration = Duration::from_secs(20);

/// Sends a header, or a trailer on `/trailer`, of `size` bytes beside a short one.
async fn large(size: usize) -> Http2Server {
    Http2Server::start(100, move |request, mut reply| async move {
        let value = HeaderValue::try_from("x".repeat(size)).expect("ASCII");
        if request.uri().path() == "/trailer" {
            let mut stream = reply.send_response(Response::new(()), false).expect("a stream");
            stream.send_data(Bytes::from("ok"), false).expect("a stream");
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("15"));
            trailers.insert("large", value);
            stream.send_trailers(trailers).ok();
        } else if request.uri().path() == "/header" {
            let response = Response::builder().status(507).header("large", value);
            let response = response.header("short", "kept").body(()).expect("valid");
            reply.send_response(response, true).ok();
        } else {
            answer(reply, "ok");
        }
    })
    .await
}

#[tokio::test]
async fn headers_and_trailers_of_20_000_bytes_arrive_whole() {
    let server = large(20_000).await;
    let factory = HttpFactory::<Sent>::new().version(HttpVersion::Http2);
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    let response = send(&endpoint, get("/header")).await.expect("answers");
    assert_eq!((response.status().as_u16(), response.headers()["large"].len()), (507, 20_000));
    let body = send(&endpoint, get("/trailer")).await.expect("answers").into_body();
    let whole = body.collect().await.expect("whole");
    assert_eq!(whole.trailers().expect("trailers")["large"].len(), 20_000);
}

#[tokio::test]
async fn headers_above_the_limit_are_an_error_with_details() {
    let server = large(20_000).await;
    let factory = HttpFactory::<Sent>::new().version(HttpVersion::Http2).max_header_size(10_000);
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    let error = send(&endpoint, get("/header")).await.map(drop).expect_err("too large");
    assert_eq!(error.kind(), HttpErrorKind::Headers);
    let found = error.headers_too_large().expect("sizes");
    assert_eq!(found.status().map(|status| status.as_u16()), Some(507));
    assert!(found.size().is_some_and(|size| size > 20_000));
    assert_eq!(found.short_fields()["short"], "kept");
    assert!(found.to_string().contains("max_header_size"), "{found}");

    let body = send(&endpoint, get("/trailer")).await.expect("begins").into_body();
    let error = body.collect().await.map(drop).expect_err("too large");
    assert_eq!(error.kind(), HttpErrorKind::Headers);
    let found = error.headers_too_large().expect("sizes");
    assert_eq!(found.short_fields()["grpc-status"], "15");

    assert_eq!(fetch(&endpoint, get("/")).await.expect("answers"), "ok");
    assert_eq!(server.n_accepted(), 1, "the connection is well");
}

async fn with_headers(n: usize) -> Server {
    Server::start(move |mut peer: Peer| async move {
        while peer.request().await.is_some() {
            let many: String = (0..n).map(|i| format!("x-{i}: y\r\n")).collect();
            peer.write(&format!("HTTP/1.1 200 OK\r\n{many}content-length: 2\r\n\r\nok")).await;
        }
    })
    .await
}

#[tokio::test]
async fn number_of_http1_headers_has_a_bound_of_its_own() {
    let server = with_headers(200).await;
    let endpoint = endpoint_of(HttpFactory::new().max_http1_headers(256), &server);
    let response = send(&endpoint, get("/")).await.expect("answers");
    assert_eq!(response.headers().len(), 201);
    let endpoint = endpoint_of(HttpFactory::new(), &server);
    let error = fetch(&endpoint, get("/")).await.expect_err("too many");
    assert_eq!(error.kind(), HttpErrorKind::Headers);
    assert!(error.headers_too_large().is_some_and(|e| e.to_string().contains("max_http1_headers")));
}

#[tokio::test]
async fn stalled_body_is_an_error_after_the_read_timeout() {
    let one = Server::start(async |mut peer| {
        while peer.request().await.is_some() {
            peer.write("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n").await;
            for part in ["a", "b", "c"] {
                sleep(Duration::from_millis(150)).await;
                peer.write(part).await;
            }
            peer.closed().await;
        }
    })
    .await;
    let two = Http2Server::start(100, async |_, mut reply| {
        let mut stream = reply.send_response(Response::new(()), false).expect("a stream");
        for part in ["a", "b", "c"] {
            sleep(Duration::from_millis(150)).await;
            stream.send_data(Bytes::from(part), false).expect("a stream");
        }
        std::future::pending::<()>().await;
    })
    .await;
    for protocol in [HttpVersion::Http1, HttpVersion::Http2] {
        let instance = match protocol {
            HttpVersion::Http1 => one.instance(),
            _ => two.instance(),
        };
        let read_timeout = Duration::from_millis(1500);
        let factory = HttpFactory::<Sent>::new().version(protocol).read_timeout(read_timeout);
        let endpoint = factory.endpoint(&instance).expect("an address");
        let mut body = send(&endpoint, get("/")).await.expect("begins").into_body();
        for part in ["a", "b", "c"] {
            let frame = body.frame().await.expect("a frame").expect("in time");
            assert_eq!(frame.into_data().expect("data"), part);
        }
        let started = Instant::now();
        let frame = timeout(BOUND, body.frame()).await.expect("in time").expect("an error");
        let error = frame.map(drop).expect_err("stalled");
        assert_eq!(error.kind(), HttpErrorKind::BodyTimeout);
        let late = started.elapsed().saturating_sub(read_timeout);
        assert!(started.elapsed() >= read_timeout && late < Duration::from_secs(1), "{late:?}");
        assert!(body.frame().await.is_none(), "the body has ended");
    }
}
