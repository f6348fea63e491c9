//! Requests whose bodies take long, fail, or are never sent.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio::time::{Sleep, sleep, timeout};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_sd_balance::{
    BalanceLayer, BoxError, Endpointer, FixedInstancer, RetryError, RetryLayer, RetryPolicy,
    RoundRobin,
};

use super::{
    Sent, fetch, get,
    http2::server::Server as Http2Server,
    server::{Peer, Server},
};
use crate::{
    HttpEndpoint, HttpError, HttpErrorKind, HttpFactory, HttpProtocol, HttpVersion, ReplayBody,
};

type Upload = UnsyncBoxBody<Bytes, BoxError>;

const BOUND: Duration = Duration::from_secs(20);

/// 20 parts of 100 bytes.
fn slow_upload() -> Request<Upload> {
    let chunks = stream::unfold(0, |n| async move {
        if n == 20 {
            return None;
        }
        sleep(Duration::from_millis(20)).await;
        Some((Ok::<_, BoxError>(Frame::data(Bytes::from(vec![b'x'; 100]))), n + 1))
    });
    let body = StreamBody::new(Box::pin(chunks)).boxed_unsync();
    Request::post("http://files/upload").body(body).expect("a valid request")
}

fn empty(path: &str) -> Request<Upload> {
    let body = Full::<Bytes>::default().map_err(|never| match never {}).boxed_unsync();
    Request::get(format!("http://files{path}")).body(body).expect("a valid request")
}

/// Answers each request after its head, and counts the letters `x` that follow.
async fn early(n_got: &Arc<AtomicUsize>) -> Server {
    let n_got = Arc::clone(n_got);
    Server::start(move |mut peer: Peer| {
        let n_got = Arc::clone(&n_got);
        async move {
            while let Some(head) = peer.head().await {
                peer.write("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
                if head.starts_with("POST") {
                    peer.chunks(|data| {
                        let n = data.iter().filter(|byte| **byte == b'x').count();
                        n_got.fetch_add(n, Ordering::SeqCst);
                    })
                    .await;
                }
            }
        }
    })
    .await
}

async fn respond(endpoint: &HttpEndpoint<Upload>, request: Request<Upload>) -> http::StatusCode {
    let response = endpoint.clone().ready().await.expect("connects").call(request).await;
    let response = response.expect("answers");
    let status = response.status();
    response.into_body().collect().await.expect("whole");
    status
}

async fn arrives_whole(n_got: &AtomicUsize) {
    let whole = async {
        while n_got.load(Ordering::SeqCst) < 2000 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(BOUND, whole).await.expect("all of it");
}

/// hyper leaves out the length of an empty body, and drops one of unknown length where it expects
/// none.
#[tokio::test]
async fn server_learns_that_a_body_is_empty_or_comes() {
    let server = Server::echo().await;
    let endpoint = HttpFactory::<Upload>::new().endpoint(&server.instance()).expect("an address");
    let streamed = || {
        let parts = stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"query")))]);
        StreamBody::new(parts).boxed_unsync()
    };
    let told = async |method: Method, body| {
        let mut request = empty("/").map(|empty| if body { streamed() } else { empty });
        *request.method_mut() = method;
        let response = endpoint.clone().ready().await.expect("connects").call(request).await;
        let body = response.expect("answers").into_body().collect().await.expect("whole");
        String::from_utf8(body.to_bytes().to_vec()).expect("ASCII")
    };
    for (method, is_told) in [
        (Method::POST, true),
        (Method::PUT, true),
        (Method::PATCH, true),
        (Method::GET, false),
        (Method::DELETE, false),
    ] {
        let bare = told(method.clone(), false).await;
        assert_eq!(bare.contains("\r\ncontent-length: 0\r\n"), is_told, "{bare}");
        assert!(!bare.contains("transfer-encoding"), "{bare}");
        let sent = told(method, true).await;
        assert!(sent.ends_with("\r\n\r\nquery") && !sent.contains("content-length"), "{sent}");
    }
}

#[tokio::test]
async fn upload_answered_early_is_not_cut_by_the_next_request() {
    for max_idle in [0, 100] {
        let n_got = Arc::<AtomicUsize>::default();
        let server = early(&n_got).await;
        let factory = HttpFactory::<Upload>::new().max_idle(max_idle);
        let endpoint = factory.endpoint(&server.instance()).expect("an address");
        assert_eq!(respond(&endpoint, slow_upload()).await, 202);
        assert!(n_got.load(Ordering::SeqCst) < 2000, "it is still sent");
        assert_eq!(respond(&endpoint, empty("/other")).await, 202);
        assert_eq!(server.n_accepted(), 2, "its connection is busy");
        drop(endpoint);
        arrives_whole(&n_got).await;
    }
}

#[tokio::test]
async fn upload_answered_early_frees_its_connection_when_sent() {
    let n_got = Arc::<AtomicUsize>::default();
    let server = early(&n_got).await;
    let factory = HttpFactory::<Upload>::new().max_http1_connections(1);
    let endpoint = factory.endpoint(&server.instance()).expect("an address");
    assert_eq!(respond(&endpoint, slow_upload()).await, 202);
    let mut next = endpoint.clone();
    timeout(BOUND, next.ready()).await.expect("in time").expect("connected");
    arrives_whole(&n_got).await;
    assert_eq!(server.n_accepted(), 1, "the same connection");
}

#[tokio::test]
async fn upload_answered_early_is_in_flight_until_it_has_been_sent() {
    let n_got = Arc::<AtomicUsize>::default();
    let server = early(&n_got).await;
    let instancer = FixedInstancer::new([server.instance()]);
    let endpointer = Endpointer::new(&instancer, HttpFactory::<Upload>::new());
    let balance = ServiceBuilder::new()
        .layer(BalanceLayer::new(RoundRobin::new()))
        .service(endpointer.clone());
    let response = balance.oneshot(slow_upload()).await.expect("answers");
    response.into_body().collect().await.expect("whole");
    let in_flight = || endpointer.report().endpoints[0].in_flight;
    assert_eq!(in_flight(), 1);
    let free = async {
        while in_flight() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(BOUND, free).await.expect("sent");
    arrives_whole(&n_got).await;
}

fn broken_upload(method: Method) -> Request<Upload> {
    let chunks = stream::iter([
        Ok(Frame::data(Bytes::from_static(b"half of it"))),
        Err(BoxError::from("the client is gone")),
    ]);
    let body = StreamBody::new(chunks).boxed_unsync();
    Request::builder().method(method).uri("http://files/upload").body(body).expect("valid")
}

#[tokio::test]
async fn upload_that_its_sender_breaks_off_is_a_failure_of_the_caller() {
    let (one, two) = (
        Server::polite().await,
        Http2Server::start(100, async |request, reply| {
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.data().await {}
            drop(reply);
        })
        .await,
    );
    for (protocol, instance) in
        [(HttpVersion::Http1, one.instance()), (HttpVersion::Http2, two.instance())]
    {
        let factory = HttpFactory::<Upload>::new().version(protocol);
        let endpoint = factory.endpoint(&instance).expect("an address");
        let sent =
            endpoint.clone().ready().await.expect("connects").call(broken_upload(Method::PUT));
        let outcome = timeout(BOUND, sent).await.expect("in time");
        let error = outcome.map(drop).expect_err("broken off");
        assert_eq!(error.kind(), HttpErrorKind::Request, "{protocol:?}: {error:?}");
        assert!(error.is_callers() && !error.is_not_sent());
    }
}

/// As that of a gateway which copies the length and streams another body.
#[tokio::test]
async fn body_of_another_length_is_a_failure_of_the_caller() {
    let (one, two) = (
        Server::start(async |mut peer| while peer.request().await.is_some() {}).await,
        Http2Server::start(100, async |request, reply| {
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.data().await {}
            drop(reply);
        })
        .await,
    );
    for (version, instance) in
        [(HttpVersion::Http1, one.instance()), (HttpVersion::Http2, two.instance())]
    {
        let factory = HttpFactory::<Upload>::new().version(version);
        let endpointer = Endpointer::new(&FixedInstancer::new([instance]), factory);
        let client = BalanceLayer::new(RoundRobin::new()).layer(endpointer.clone());
        for (n, length) in ["10", "3"].into_iter().enumerate() {
            // HTTP/1.1 sends what was announced, and the server has got all of it.
            if version == HttpVersion::Http1 && length == "3" {
                continue;
            }
            let parts = stream::iter([Ok(Frame::data(Bytes::from_static(b"half")))]);
            let request = Request::put("http://files/upload").header("content-length", length);
            let request = request.body(StreamBody::new(parts).boxed_unsync()).expect("valid");
            let sent = timeout(BOUND, client.clone().oneshot(request)).await.expect("in time");
            let error = sent.map(drop).expect_err("another length");
            let error: &HttpError = error.downcast_ref().expect("ours");
            assert_eq!(error.kind(), HttpErrorKind::Request, "{version:?}, {length}: {error:?}");
            let endpoint = &endpointer.report().endpoints[0];
            let counted = (endpoint.failures, endpoint.outcomes.cancelled);
            assert_eq!(counted, (0, u64::try_from(n).expect("small") + 1));
        }
    }
}

/// The server would wait for the rest, or read it from the next request.
#[tokio::test]
async fn body_in_memory_of_another_length_is_not_sent() {
    let server = Server::polite().await;
    let endpoint = super::endpoint(&server);
    for (length, body) in [("10", ""), ("10", "half"), ("3", "half")] {
        let request = Request::put("http://files/").header("content-length", length);
        let request = request.body(Sent::from(body)).expect("valid");
        let error = fetch(&endpoint, request).await.expect_err("another length");
        assert_eq!(error.kind(), HttpErrorKind::Request, "{error:?}");
    }
    assert_eq!(fetch(&endpoint, get("/")).await.expect("answers"), "ok");
    assert_eq!(server.n_accepted(), 1);
}

#[tokio::test]
async fn connect_requests_are_refused_and_the_connection_is_kept() {
    let server = Server::polite().await;
    let endpoint = super::endpoint(&server);
    let mut connect = get("/");
    *connect.method_mut() = Method::CONNECT;
    let error = fetch(&endpoint, connect).await.expect_err("no tunnels");
    assert_eq!(error.kind(), HttpErrorKind::Request);
    assert_eq!(fetch(&endpoint, get("/")).await.expect("answers"), "ok");
    assert_eq!(server.n_accepted(), 1);
}

#[tokio::test]
async fn response_future_dropped_unpolled_keeps_its_connection() {
    let server = Server::polite().await;
    let endpoint = super::endpoint(&server);
    for _ in 0..5 {
        let mut endpoint = endpoint.clone();
        drop(endpoint.ready().await.expect("connects").call(get("/")));
    }
    assert_eq!(fetch(&endpoint, get("/")).await.expect("answers"), "ok");
    assert_eq!(server.n_accepted(), 1);
}

#[tokio::test]
async fn body_by_default_is_empty() {
    let body = crate::ResponseBody::<Sent>::default();
    assert!(body.is_end_stream());
    assert_eq!(body.collect().await.expect("whole").to_bytes(), "");
}

/// Parts of 4 KiB, one each 2 ms; it reports its end as hyper's own bodies do.
struct Parts(usize, Pin<Box<Sleep>>);

impl Body for Parts {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        ready!(self.1.as_mut().poll(cx));
        (self.0, self.1) = (self.0 - 1, Box::pin(sleep(Duration::from_millis(2))));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; 4096])))))
    }

    fn is_end_stream(&self) -> bool {
        self.0 == 0
    }
}

/// What is sent of the first attempt goes on during the pause before the second.
#[tokio::test]
async fn upload_that_cannot_be_sent_again_is_never_repeated_empty() {
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let log = Arc::clone(&heads);
    let server = Server::start(move |mut peer: Peer| {
        let log = Arc::clone(&log);
        async move {
            while let Some(head) = peer.head().await {
                log.lock().expect("no panic").push(head);
                peer.write("HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n").await;
                peer.chunks(|_| {}).await;
            }
        }
    })
    .await;
    // A pause of about its ceiling, in which all parts pass.
    let pause = Duration::from_secs(1);
    let policy = RetryPolicy::new().backoff(pause, pause).with_seed(LONG_PAUSE);
    let endpointer = Endpointer::new(&FixedInstancer::new([server.instance()]), HttpFactory::new());
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(policy.protocol(HttpProtocol::new().repeat_unavailable())))
        .layer(BalanceLayer::new(RoundRobin::new()))
        .service(endpointer);
    let body = ReplayBody::new(Parts(40, Box::pin(sleep(Duration::ZERO))));
    let request = Request::put("http://files/upload").body(body).expect("a valid request");
    let outcome = timeout(BOUND, client.oneshot(request)).await.expect("in time");
    let error = outcome.map(drop).expect_err("its body is spent");
    let error: &RetryError = error.downcast_ref().expect("ours");
    assert_eq!(error.attempts().len(), 1);
    let heads = heads.lock().expect("no panic");
    assert!(heads.iter().all(|head| head.contains("transfer-encoding: chunked")), "{heads:?}");
    assert_eq!(heads.len(), 1);
}

/// The first pause that follows from it is 0.9 of its ceiling or more.
const LONG_PAUSE: u64 = 1;
