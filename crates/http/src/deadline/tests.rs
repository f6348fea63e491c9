use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::{
    task::yield_now,
    time::{Instant, sleep, sleep_until},
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_sd_balance::CallerDeadline;

use super::{DeadlineLayer, grpc_timeout, header};

type Sent = Response<Full<Bytes>>;

/// Takes as long as its request's path, in ms; counts those that are dropped on the way.
fn server(
    layer: &DeadlineLayer,
    dropped: &Arc<AtomicU64>,
) -> impl Service<
    Request<()>,
    Response = Response<super::DeadlineBody<Full<Bytes>>>,
    Error = Infallible,
    Future: Send,
> + Clone
+ use<> {
    let dropped = Arc::clone(dropped);
    layer.layer(service_fn(move |request: Request<()>| {
        let guard = Dropped(Arc::clone(&dropped));
        async move {
            let ms = request.uri().path()[1..].parse().expect("a number");
            sleep(Duration::from_millis(ms)).await;
            std::mem::forget(guard);
            Ok(Sent::new(Full::default()))
        }
    }))
}

struct Dropped(Arc<AtomicU64>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

fn request(ms: u64, header: (&str, &str)) -> Request<()> {
    Request::get(format!("/{ms}")).header(header.0, header.1).body(()).expect("a request")
}

fn grpc(ms: u64, timeout: &str) -> Request<()> {
    let mut request = request(ms, ("grpc-timeout", timeout));
    let kind = "application/grpc+proto".parse().expect("a value");
    request.headers_mut().insert("content-type", kind);
    request
}

const EXPECTED: &str = "x-envoy-expected-rq-timeout-ms";

#[tokio::test(start_paused = true)]
async fn late_work_is_refused_immediately_and_running_work_is_dropped() {
    let (layer, dropped) = (DeadlineLayer::new(), Arc::default());
    for (request, took, n_dropped) in [
        (request(900, (EXPECTED, "0")), 0, 0),
        (grpc(900, "0n"), 0, 0),
        (request(900, (EXPECTED, "300")), 300, 1),
        (grpc(900, "300m"), 300, 2),
    ] {
        let is_grpc = header::is_grpc(request.headers());
        let begun = Instant::now();
        let response = server(&layer, &dropped).oneshot(request).await.expect("infallible");
        assert_eq!((begun.elapsed().as_millis(), dropped.load(Relaxed)), (took, n_dropped));
        let status = if is_grpc { StatusCode::OK } else { StatusCode::GATEWAY_TIMEOUT };
        assert_eq!(response.status(), status);
        let code = response.headers().get("grpc-status").map(|code| code.to_str().expect("text"));
        assert_eq!(code, is_grpc.then_some("4"));
        assert!(response.into_body().collect().await.expect("empty").to_bytes().is_empty());
    }
    let report = layer.report();
    assert_eq!((report.late, report.cancelled, report.malformed), (2, 2, 0));
}

/// A handler's own clients fail at the deadline too: its answer to that is not what happened.
#[tokio::test(start_paused = true)]
async fn handler_that_fails_at_the_deadline_is_late() {
    let layer = DeadlineLayer::new();
    let handler = layer.layer(service_fn(|_: Request<()>| async {
        sleep_until(CallerDeadline::current().expect("a deadline").at()).await;
        let mut response = Sent::new(Full::default());
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        Ok::<_, Infallible>(response)
    }));
    let response = handler.oneshot(request(0, (EXPECTED, "300"))).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(layer.report().cancelled, 1);
}

#[tokio::test(start_paused = true)]
async fn header_that_is_no_duration_is_ignored_and_counted() {
    let (layer, dropped) = (DeadlineLayer::new(), Arc::default());
    let bad = ["", "-1", "+1", "1.5", "5s", "€", "1 0", "∞"];
    for value in bad {
        let response =
            server(&layer, &dropped).oneshot(request(5, (EXPECTED, value))).await.expect("serves");
        assert_eq!(response.status(), StatusCode::OK, "{value:?}");
    }
    let response = server(&layer, &dropped).oneshot(grpc(5, "5s")).await.expect("serves");
    assert!(response.headers().get("grpc-status").is_none());
    assert_eq!(layer.report().malformed, 9);
    // What no clock counts is no deadline, and no fault.
    for value in ["18446744073709551615", "99999999999999999999999999"] {
        let response =
            server(&layer, &dropped).oneshot(request(5, (EXPECTED, value))).await.expect("serves");
        assert_eq!(response.status(), StatusCode::OK, "{value}");
    }
    // Of the other protocol.
    server(&layer, &dropped).oneshot(request(5, ("grpc-timeout", "0n"))).await.expect("serves");
    let report = layer.report();
    assert_eq!((report.late, report.cancelled, report.malformed), (0, 0, 9));
}

/// What a handler sees in its call, its future, and its stream.
#[tokio::test(start_paused = true)]
async fn handler_has_the_deadline_of_its_caller() {
    let layer = DeadlineLayer::new();
    let seen = |_: Request<()>| -> Ready<Result<_, Infallible>> {
        let deadline = CallerDeadline::current();
        ready(Ok(Response::new(Full::new(Bytes::from(format!("{deadline:?}"))))))
    };
    let at = Instant::now() + Duration::from_millis(250);
    for (request, expected) in [
        (grpc(0, "250m"), Some(CallerDeadline::new(at))),
        (request(0, (EXPECTED, "250")), Some(CallerDeadline::to_head(at))),
        (request(0, ("x", "y")), None),
    ] {
        let body = layer.layer(service_fn(seen)).oneshot(request).await.expect("serves");
        let body = body.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(body, format!("{expected:?}"));
        assert_eq!(CallerDeadline::current(), None);
    }
}

/// A client that gives up is neither late nor out of time.
#[tokio::test(start_paused = true)]
async fn request_that_is_dropped_at_any_poll_counts_nothing() {
    let (layer, dropped) = (DeadlineLayer::new(), Arc::<AtomicU64>::default());
    let server = layer.layer(service_fn(|_: Request<()>| {
        let guard = Dropped(Arc::clone(&dropped));
        async move {
            let _guard = guard;
            for _ in 0..10 {
                yield_now().await;
            }
            Ok::<_, Infallible>(Sent::new(Full::default()))
        }
    }));
    for n_polls in 0..11 {
        let mut call = Box::pin(server.clone().oneshot(request(0, (EXPECTED, "300"))));
        for _ in 0..n_polls {
            assert!((&mut call).now_or_never().is_none());
            assert_eq!(CallerDeadline::current(), None);
        }
        drop(call);
        let report = layer.report();
        assert_eq!((report.late, report.cancelled, report.malformed), (0, 0, 0));
        assert_eq!(dropped.load(Relaxed), n_polls, "each handler once");
    }
}

#[tokio::test(start_paused = true)]
async fn grpc_stream_ends_at_the_deadline_and_a_download_goes_on() {
    let endless = |_: Request<()>| {
        let frames = futures_util::stream::unfold((), async |()| {
            sleep(Duration::from_millis(100)).await;
            let frame = http_body::Frame::data(Bytes::from_static(b"x"));
            Some((Ok::<_, Infallible>(frame), ()))
        });
        ready(Ok::<_, Infallible>(Response::new(StreamBody::new(Box::pin(frames)))))
    };
    let layer = DeadlineLayer::new();
    let response = layer.layer(service_fn(endless)).oneshot(grpc(0, "350m")).await.expect("serves");
    let begun = Instant::now();
    let body = response.into_body().collect().await.expect("ends");
    assert_eq!(begun.elapsed().as_millis(), 350);
    let trailers: HeaderMap = body.trailers().cloned().expect("trailers");
    assert_eq!(
        (trailers["grpc-status"].as_bytes(), body.to_bytes().as_ref()),
        (&b"4"[..], &b"xxx"[..])
    );
    assert_eq!(layer.report().cancelled, 1);
    let request = request(0, (EXPECTED, "350"));
    let mut response = layer.layer(service_fn(endless)).oneshot(request).await.expect("serves");
    for _ in 0..10 {
        response.body_mut().frame().await.expect("goes on").expect("a frame");
    }
}

#[tokio::test(start_paused = true)]
async fn header_is_written_as_it_is_read() {
    let mut headers = HeaderMap::new();
    let at = Instant::now() + Duration::from_micros(299_900);
    headers.insert(EXPECTED, "5000".parse().expect("a value"));
    header::write(&mut headers, at);
    assert_eq!(headers[EXPECTED], "299");
    let read = header::read(&headers, false).expect("well-formed").expect("a deadline");
    assert_eq!(at - read.at(), Duration::from_micros(900));
    assert_eq!(grpc_timeout::NAME, "grpc-timeout");
    for at in [Instant::now() + Duration::from_micros(300), Instant::now()] {
        header::write(&mut headers, at);
        assert_eq!(headers[EXPECTED], "1", "0 is without bound to Envoy");
    }
}

/// The usual reason why work comes too late: it has waited for a place.
#[tokio::test(start_paused = true)]
async fn time_in_a_queue_counts() {
    let (layer, dropped) = (DeadlineLayer::new(), Arc::default());
    let begun = Arc::<AtomicU64>::default();
    let counter = Arc::clone(&begun);
    let counted = ServiceBuilder::new()
        .layer(layer.clone())
        .concurrency_limit(1)
        .map_request(move |request: Request<()>| {
            counter.fetch_add(1, Relaxed);
            request
        })
        .service(server(&DeadlineLayer::new(), &dropped));
    let (first, second) = (counted.clone(), counted);
    let started = Instant::now();
    let (first, second) = tokio::join!(first.oneshot(request(10_000, ("x", "y"))), async {
        let response = second.oneshot(request(5, (EXPECTED, "300"))).await;
        (response.expect("infallible").status(), started.elapsed())
    });
    assert_eq!(first.expect("infallible").status(), StatusCode::OK);
    assert_eq!(second, (StatusCode::GATEWAY_TIMEOUT, Duration::from_millis(300)));
    assert_eq!((begun.load(Relaxed), layer.report().cancelled), (1, 1));
}
