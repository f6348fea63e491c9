use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use http::{HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    body::{DeadlineBody, write_status},
    header::{self, Malformed},
    timer::{Counters, Timer},
};

/// Ends a server's work on requests whose clients have stopped waiting.
///
/// It reads how much time a client has left: in `x-envoy-expected-rq-timeout-ms`, which the clients
/// of this crate and Envoy's proxies send, or in `grpc-timeout` of a gRPC call.
///
/// - A request without time is answered immediately, and never reaches the service: 504, or
///   DEADLINE_EXCEEDED.
/// - One whose time is over is dropped, and answered likewise.
/// - While it is worked on, clients that are called have what is left, and carry it on: see
///   [`CallerDeadline`].
///
/// Over HTTP the deadline covers the head of the response, because a client may let the body go on;
/// over gRPC the whole call. A request without the header is unbounded, and one that is no duration
/// is ignored and [counted](Self::report).
///
/// For every server of `http` requests, axum's and tonic's among them. It goes outside of what
/// queues: time in a queue counts. A server without it works on after its clients have gone, unless
/// their connections close.
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use http_body_util::Empty;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_sd::http::DeadlineLayer;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_sd::BoxError> {
/// let deadlines = DeadlineLayer::new();
/// let server = ServiceBuilder::new().layer(deadlines.clone()).service(service_fn(
///     async |_: Request<()>| Ok::<_, std::io::Error>(Response::new(Empty::<&[u8]>::new())),
/// ));
/// let late = Request::get("/").header("x-envoy-expected-rq-timeout-ms", "0").body(())?;
/// assert_eq!(server.oneshot(late).await?.status(), StatusCode::GATEWAY_TIMEOUT);
/// assert_eq!(deadlines.report().late, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct DeadlineLayer {
    counters: Arc<Counters>,
}

/// A service below a [`DeadlineLayer`].
#[derive(Clone, Debug)]
pub struct Deadline<S> {
    inner: S,
    counters: Arc<Counters>,
}

/// The future response of a [`Deadline`] service.
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct DeadlineFuture<F> {
    /// `None`: its time is over.
    #[pin]
    inner: Option<F>,
    timer: Option<Timer>,
    is_grpc: bool,
    counters: Arc<Counters>,
}

/// What a [`DeadlineLayer`] has seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DeadlineReport {
    /// Requests that came too late.
    pub late: u64,
    /// Requests that were dropped on the way because their time was over.
    pub cancelled: u64,
    /// Headers that were ignored because they are no duration.
    pub malformed: u64,
}

impl DeadlineLayer {
    /// Counts from zero. Clones share their counters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What its services have seen.
    #[must_use]
    pub fn report(&self) -> DeadlineReport {
        let Counters { late, cancelled, malformed } = &*self.counters;
        let [late, cancelled, malformed] = [late, cancelled, malformed].map(|n| n.load(Relaxed));
        DeadlineReport { late, cancelled, malformed }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner, counters: Arc::clone(&self.counters) }
    }
}

impl<S, B, R> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<DeadlineBody<R>>;
    type Error = S::Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let counters = Arc::clone(&self.counters);
        let is_grpc = header::is_grpc(request.headers());
        let deadline = header::read(request.headers(), is_grpc).unwrap_or_else(|Malformed| {
            counters.malformed.fetch_add(1, Relaxed);
            None
        });
        let timer = deadline.map(Timer::new);
        let inner = match &timer {
            None => Some(self.inner.call(request)),
            Some(timer) if timer.is_over() => {
                counters.late.fetch_add(1, Relaxed);
                None
            }
            Some(timer) => Some(timer.deadline().enter(|| self.inner.call(request))),
        };
        DeadlineFuture { inner, timer, is_grpc, counters }
    }
}

impl<F, R, E> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<DeadlineBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(Ok(too_late(*this.is_grpc)));
        };
        let Some(timer) = this.timer else {
            return inner.poll(cx).map_ok(|response| response.map(DeadlineBody::new));
        };
        if let Poll::Ready(result) = timer.deadline().enter(|| inner.poll(cx)) {
            let timer = this.timer.take().filter(|_| *this.is_grpc);
            return Poll::Ready(result.map(|response| {
                match timer {
                    Some(timer) => response
                        .map(|body| DeadlineBody::bounded(body, timer, Arc::clone(this.counters))),
                    None => response.map(DeadlineBody::new),
                }
            }));
        }
        if timer.poll(cx).is_pending() {
            return Poll::Pending;
        }
        // Drops what works on it.
        this.inner.set(None);
        this.counters.cancelled();
        Poll::Ready(Ok(too_late(*this.is_grpc)))
    }
}

/// 504 (RFC 9110 §15.6.5), or gRPC's DEADLINE_EXCEEDED without a body.
fn too_late<R>(is_grpc: bool) -> Response<DeadlineBody<R>> {
    let mut response = Response::new(DeadlineBody::empty());
    match is_grpc {
        true => {
            let kind = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            write_status(response.headers_mut());
        }
        false => *response.status_mut() = StatusCode::GATEWAY_TIMEOUT,
    }
    response
}
