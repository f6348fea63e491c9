//! Answers of a raw HTTP/2 server on a paused clock, at chosen moments.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::{Reason, server::SendResponse};
use http::{HeaderMap, Response};
use tokio::{
    io::DuplexStream,
    sync::mpsc,
    time::{Instant, advance, sleep},
};
use tonic::{Code, Request, Status};
use tower_sd_balance::{
    CallerDeadline, EndpointReport, Endpointer, EndpointerConfig, FixedInstancer, Instance,
    RetryPolicy, async_trait,
};
use tower_sd_http::{Connector, HttpFactory, Io};
use tower_sd_net::Target;
use tower_sd_tonic::{GrpcFactory, GrpcLayer};

use crate::{Endpoints, balanced, echo::echo_client::EchoClient, message, retried, stack};

/// A network without sockets, whose connections take a while.
#[derive(Debug)]
struct Memory {
    dialled: mpsc::Sender<DuplexStream>,
    delay: Duration,
}

#[async_trait]
impl Connector for Memory {
    async fn resolve(&self, _host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![SocketAddr::from(([192, 0, 2, 1], port))])
    }

    async fn connect(&self, _target: &Target, _address: SocketAddr) -> io::Result<Io> {
        sleep(self.delay).await;
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        self.dialled.send(theirs).await.map_err(io::Error::other)?;
        Ok(Io::boxed(ours))
    }
}

/// An instance whose connections are served by `answer`, one after the other.
#[expect(clippy::future_not_send, reason = "a test has one thread")]
async fn serving<T>(
    configure: impl FnOnce(GrpcFactory) -> GrpcFactory,
    delay: Duration,
    answer: impl AsyncFn(SendResponse<Bytes>),
    calls: impl AsyncFnOnce(Endpoints) -> T,
) -> T {
    let (dialled, mut accepted) = mpsc::channel(1);
    let factory = GrpcFactory::over(HttpFactory::new().connector(Memory { dialled, delay }));
    let bound = Duration::from_secs(3);
    let config = EndpointerConfig::new().connect_timeout(bound);
    let instances = FixedInstancer::new([Instance::new("raw", 1)]);
    let factory = configure(factory.connect_timeout(bound));
    let endpointer = Endpointer::with_config(&instances, factory, config);
    let serve = async {
        while let Some(stream) = accepted.recv().await {
            let Ok(mut connection) = h2::server::handshake(stream).await else {
                continue;
            };
            let mut answers = FuturesUnordered::new();
            loop {
                tokio::select! {
                    call = connection.accept() => match call {
                        Some(Ok((_request, respond))) => answers.push(answer(respond)),
                        Some(Err(_)) | None => break,
                    },
                    Some(()) = answers.next() => {}
                }
            }
        }
    };
    tokio::select! {
        done = calls(endpointer) => done,
        () = serve => panic!("it serves to the end"),
    }
}

fn only(endpointer: &Endpoints) -> EndpointReport {
    let mut report = endpointer.report();
    assert_eq!(report.endpoints.len(), 1);
    report.endpoints.remove(0)
}

fn head(headers: &[(&'static str, &'static str)]) -> Response<()> {
    let mut response = Response::new(());
    for (name, value) in headers {
        response.headers_mut().insert(*name, value.parse().expect("a value"));
    }
    response
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

fn trailers_only(mut respond: SendResponse<Bytes>) {
    respond.send_response(head(&[GRPC, ("grpc-status", "1")]), true).expect("open");
}

fn reset(mut respond: SendResponse<Bytes>) {
    respond.send_reset(Reason::CANCEL);
}

fn in_trailers(mut respond: SendResponse<Bytes>) {
    let mut body = respond.send_response(head(&[GRPC]), false).expect("open");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "1".parse().expect("a value"));
    body.send_trailers(trailers).expect("open");
}

/// Within the tick of the client's timer, which is due at 101 ms.
const GRANTED: Duration = Duration::from_micros(100_400);
const ENDED: Duration = Duration::from_micros(100_500);

/// The status of a call that its server ends by `end` at the moment of its deadline.
async fn ended_by_the_server(
    end: fn(SendResponse<Bytes>),
    is_callers: bool,
) -> (Status, EndpointReport) {
    let answer = async |respond| {
        advance(ENDED).await;
        end(respond);
    };
    serving(
        |it| it,
        Duration::ZERO,
        answer,
        async |endpointer| {
            endpointer.ready(Duration::from_secs(1)).await.expect("connects");
            let mut client = retried(&endpointer, RetryPolicy::new());
            let ended = if is_callers {
                let at = Instant::now() + GRANTED;
                CallerDeadline::new(at).scope(client.one(message("hello"))).await
            } else {
                let mut request = Request::new(message("hello"));
                request.set_timeout(GRANTED);
                client.one(request).await
            };
            (ended.expect_err("ended"), only(&endpointer))
        },
    )
    .await
}

/// A server without a layer for deadlines ends the call by its own timer, a tick earlier.
#[tokio::test(start_paused = true)]
async fn call_that_its_server_cancels_at_the_deadline_timed_out() {
    for (how, end) in
        [("trailers only", trailers_only as fn(_)), ("reset", reset), ("in trailers", in_trailers)]
    {
        for is_callers in [false, true] {
            let (status, endpoint) = ended_by_the_server(end, is_callers).await;
            assert_eq!(status.code(), Code::DeadlineExceeded, "{how}, {is_callers}: {status}");
            let it = endpoint.outcomes;
            // The reader of the trailers has not waited, so that the haste may be its own.
            let is_cancelled = is_callers || how == "in trailers";
            let expected = if is_cancelled { (0, 1) } else { (1, 0) };
            assert_eq!((it.timed_out, it.cancelled), expected, "{how}: {it:?}");
            assert_eq!((it.success, it.failed_exchange), (0, 0), "{how}: {it:?}");
        }
    }
}

/// A proxy's page: it is fast, and serves no call.
#[tokio::test(start_paused = true)]
async fn answer_that_is_no_grpc_counts_against_the_instance() {
    let answer = async |mut respond: SendResponse<Bytes>| {
        let head = head(&[("content-type", "text/html")]);
        let mut body = respond.send_response(head, false).expect("open");
        body.send_data(Bytes::from_static(b"<html>"), true).expect("open");
    };
    serving(
        |it| it,
        Duration::ZERO,
        answer,
        async |endpointer| {
            endpointer.ready(Duration::from_secs(1)).await.expect("connects");
            balanced(&endpointer).one(message("hello")).await.expect_err("a page");
            let endpoint = only(&endpointer);
            assert_eq!((endpoint.failures, endpoint.outcomes.success), (1, 0));
        },
    )
    .await;
}

/// As after a crash behind a proxy: the caller gets UNKNOWN.
#[tokio::test(start_paused = true)]
async fn answer_without_a_status_counts_against_the_instance() {
    let in_headers = |mut respond: SendResponse<Bytes>| {
        respond.send_response(head(&[GRPC]), true).expect("open");
    };
    let after_a_message = |mut respond: SendResponse<Bytes>| {
        let mut body = respond.send_response(head(&[GRPC]), false).expect("open");
        body.send_data(Bytes::from_static(&[0; 5]), true).expect("open");
    };
    let with_trailers = |mut respond: SendResponse<Bytes>| {
        let mut body = respond.send_response(head(&[GRPC]), false).expect("open");
        body.send_data(Bytes::from_static(&[0; 5]), false).expect("open");
        body.send_trailers(HeaderMap::new()).expect("open");
    };
    for (how, end) in [
        ("in the headers", in_headers as fn(_)),
        ("after a message", after_a_message),
        ("with trailers", with_trailers),
    ] {
        // The second reads ahead.
        for idempotent in [&[][..], &["echo.Echo"]] {
            let answer = async |respond| end(respond);
            let calls = async |endpointer: Endpoints| {
                endpointer.ready(Duration::from_secs(1)).await.expect("connects");
                let layer = GrpcLayer::new().idempotent(idempotent.iter().copied());
                let mut client = EchoClient::new(stack(&endpointer, layer, RetryPolicy::new()));
                let status = client.one(message("hello")).await.expect_err("no status");
                assert_eq!(status.code(), Code::Unknown, "{how}: {status}");
                let endpoint = only(&endpointer);
                let it = (endpoint.failures, endpoint.outcomes.success);
                assert_eq!(it, (1, 0), "{how}, {idempotent:?}");
            };
            serving(|it| it, Duration::ZERO, answer, calls).await;
        }
    }
}

/// One message of the health protocol: SERVING.
fn serves(respond: &mut SendResponse<Bytes>) -> h2::SendStream<Bytes> {
    let mut body = respond.send_response(head(&[GRPC]), false).expect("open");
    body.send_data(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]), false).expect("open");
    body
}

#[tokio::test(start_paused = true)]
async fn instance_that_connects_slowly_is_checked_once_connected() {
    let open = RefCell::new(Vec::new());
    let answer = async |mut respond| open.borrow_mut().push(serves(&mut respond));
    let slow = Duration::from_millis(1_200);
    serving(
        |it| it.health("echo.Echo"),
        slow,
        answer,
        async |endpointer| {
            endpointer.ready(Duration::from_secs(10)).await.expect("it serves");
        },
    )
    .await;
}

/// As servers and balancers do that bound the age of connections.
#[tokio::test(start_paused = true)]
async fn health_stream_that_ends_regularly_begins_anew_soon() {
    let (n_streams, begun) = (Cell::new(0), Instant::now());
    let answer = async |mut respond| {
        n_streams.set(n_streams.get() + 1);
        let mut body = serves(&mut respond);
        sleep(Duration::from_secs(10)).await;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().expect("a value"));
        body.send_trailers(trailers).expect("open");
    };
    serving(
        |it| it.health("echo.Echo"),
        Duration::ZERO,
        answer,
        async |endpointer| {
            endpointer.ready(Duration::from_secs(10)).await.expect("it serves");
            sleep(Duration::from_secs(600)).await;
        },
    )
    .await;
    assert!(n_streams.get() >= 55, "{n_streams:?} in {:?}", begun.elapsed());
}

/// Behind a proxy that has no route to it yet, or after a server was replaced at its address.
#[tokio::test(start_paused = true)]
async fn health_service_that_comes_later_is_found() {
    let n_streams = Cell::new(0);
    let answer = async |mut respond: SendResponse<Bytes>| {
        n_streams.set(n_streams.get() + 1);
        respond.send_response(head(&[GRPC, ("grpc-status", "12")]), true).expect("open");
    };
    serving(
        |it| it.health("echo.Echo"),
        Duration::ZERO,
        answer,
        async |endpointer| {
            endpointer.ready(Duration::from_secs(10)).await.expect("it counts as serving");
            sleep(Duration::from_secs(1_500)).await;
        },
    )
    .await;
    assert!((2..=4).contains(&n_streams.get()), "{n_streams:?}");
}
