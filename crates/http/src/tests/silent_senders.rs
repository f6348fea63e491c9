//! Requests whose bodies are waited for.

use std::{iter, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio::time::timeout;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_sd_balance::{
    BalanceLayer, BoxError, Endpointer, FixedInstancer, RetryLayer, RetryPolicy, RoundRobin,
};

use super::{
    http2::server::Server as Http2Server,
    server::{Peer, Server},
};
use crate::{HttpEndpoint, HttpFactory, HttpProtocol, HttpVersion, ReplayBody};

type Upload = UnsyncBoxBody<Bytes, BoxError>;

const BOUND: Duration = Duration::from_secs(20);

/// A request that sends `n` parts of 1 KiB, and never ends.
fn endless(n: usize) -> Request<Upload> {
    let part = || Ok::<_, BoxError>(Frame::data(Bytes::from(vec![b'x'; 1024])));
    let parts = stream::iter(iter::repeat_with(part).take(n)).chain(stream::pending());
    let body = StreamBody::new(parts).boxed_unsync();
    Request::post("http://files/upload").body(body).expect("a valid request")
}

async fn is_served(endpoint: &HttpEndpoint<Upload>) {
    let body = Full::<Bytes>::default().map_err(|never| match never {}).boxed_unsync();
    let request = Request::get("http://files/").body(body).expect("a valid request");
    let sent = async {
        let response = endpoint.clone().ready().await.expect("connects").call(request).await;
        response.expect("answers").into_body().collect().await.expect("whole").to_bytes()
    };
    assert_eq!(timeout(BOUND, sent).await.expect("in time"), "ok");
}

/// Answers an upload before its end, and waits until it is reset; takes one request at a time.
async fn early() -> Http2Server {
    Http2Server::start(1, async |request, mut reply| {
        let mut head = http::Response::new(());
        let is_large = request.uri().query() == Some("large");
        let large = http::HeaderValue::from_bytes(&[b'x'; 4096]).expect("a value");
        if is_large {
            head.headers_mut().insert("x-large", large);
        }
        let mut stream = reply.send_response(head, false).expect("a stream");
        if request.uri().path() == "/upload" {
            std::future::poll_fn(|cx| stream.poll_reset(cx)).await.expect("a reset");
        } else {
            stream.send_data(Bytes::from("ok"), true).expect("a stream");
        }
    })
    .await
}

#[tokio::test]
async fn response_given_up_during_its_upload_ends_its_stream() {
    let server = early().await;
    let factory = HttpFactory::<Upload>::new()
        .version(HttpVersion::Http2)
        .max_http2_connections(1)
        .max_header_size(2048)
        .read_timeout(Duration::from_millis(500));
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    for request in [endless(0), endless(3)] {
        let response = endpoint.clone().ready().await.expect("connects").call(request).await;
        drop(response.expect("begins"));
        is_served(&endpoint).await;
    }
    let response = endpoint.clone().ready().await.expect("connects").call(endless(0)).await;
    let mut body = response.expect("begins").into_body();
    timeout(BOUND, body.frame()).await.expect("in time").expect("an error").expect_err("late");
    is_served(&endpoint).await;
    let mut request = endless(0);
    *request.uri_mut() = "http://files/upload?large".parse().expect("a URI");
    let response = endpoint.clone().ready().await.expect("connects").call(request).await;
    response.map(drop).expect_err("too large");
    is_served(&endpoint).await;
    drop(body);
}

/// Where the server does not read, that is its fault.
#[tokio::test]
async fn slow_sender_is_no_timeout_of_the_instance() {
    let one = Server::start(async |mut peer: Peer| {
        peer.head().await;
        peer.chunks(|_| {}).await;
    })
    .await;
    let two = Http2Server::start(100, async |request, reply| {
        let mut body = request.into_body();
        while let Some(Ok(data)) = body.data().await {
            body.flow_control().release_capacity(data.len()).expect("a stream");
        }
        drop(reply);
    })
    .await;
    let unread = Http2Server::start(100, async |_request, _reply| std::future::pending().await);
    let unread = unread.await;
    for (version, instance, n_parts, counted) in [
        (HttpVersion::Http1, one.instance(), 1, (0, 1)),
        (HttpVersion::Http2, two.instance(), 1, (0, 1)),
        (HttpVersion::Http2, unread.instance(), 1 << 10, (1, 0)),
    ] {
        let factory = HttpFactory::<ReplayBody<Upload>>::new().version(version);
        let endpointer = Endpointer::new(&FixedInstancer::new([instance]), factory);
        let policy = RetryPolicy::new().max_attempts(1).per_try_timeout(Duration::from_millis(300));
        let client = ServiceBuilder::new()
            .layer(RetryLayer::new(policy.protocol(HttpProtocol::new())))
            .layer(BalanceLayer::new(RoundRobin::new()))
            .service(endpointer.clone());
        let request = endless(n_parts).map(ReplayBody::new);
        client.oneshot(request).await.map(drop).expect_err("late");
        let endpoint = &endpointer.report().endpoints[0];
        assert_eq!((endpoint.failures, endpoint.outcomes.cancelled), counted, "{version:?}");
    }
}
