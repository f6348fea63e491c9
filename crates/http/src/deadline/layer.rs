use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
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
///   [`CallerDeadline`](tower_sd_balance::CallerDeadline).
///
/// Over HTTP the deadline covers the head of the response, because a client may let the body go on;
/// over gRPC the whole call. A request without the header is unbounded, and one that is no duration
/// is ignored and [counted](Self::report).
///
/// For every server of `http` requests, axum's and tonic's among them. It goes outside of what
/// queues, because time in a queue counts: it is always ready, and a request waits in its future
/// for the service below. tonic's `concurrency_limit_per_connection` stands outside of every layer.
/// A server without it works on after its clients have gone, unless their connections close.
///
/// A client can set a header to any value. At the edge of a network remove it from the requests of
/// strangers, as Envoy does: one with little time makes healthy instances appear slow.
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
#[must_use = "futures do nothing unless polled"]
pub struct DeadlineFuture<S: Service<Request<B>>, B> {
    #[pin]
    state: State<S, S::Future, Request<B>>,
    timer: Option<Timer>,
    is_grpc: bool,
    counters: Arc<Counters>,
}

#[pin_project(project = StateProjection)]
enum State<S, F, R> {
    /// The request waits until the service is ready.
    Waiting(S, Option<R>),
    Working(#[pin] F),
    /// Its time is over.
    Over,
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
    pub fn new() -> Self {
        Self::default()
    }

    /// What its services have seen.
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
    S: Service<Request<B>, Response = Response<R>> + Clone,
{
    type Response = Response<DeadlineBody<R>>;
    type Error = S::Error;
    type Future = DeadlineFuture<S, B>;

    /// Always ready: a request waits in its future, where its time runs.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let counters = Arc::clone(&self.counters);
        let is_grpc = header::is_grpc(request.headers());
        let deadline = header::read(request.headers(), is_grpc).unwrap_or_else(|Malformed| {
            counters.malformed.fetch_add(1, Relaxed);
            None
        });
        let mut timer = deadline.map(Timer::new);
        let state = match timer.take_if(|timer| timer.is_over()) {
            Some(_) => {
                counters.late.fetch_add(1, Relaxed);
                State::Over
            }
            None => State::Waiting(self.inner.clone(), Some(request)),
        };
        DeadlineFuture { state, timer, is_grpc, counters }
    }
}

impl<S, B, R> Future for DeadlineFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Output = Result<Response<DeadlineBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        // First, because what this service calls has the same deadline and fails at it.
        if this.timer.as_mut().is_some_and(|timer| timer.poll(cx).is_ready()) {
            // Drops what works on it.
            this.state.set(State::Over);
            *this.timer = None;
            this.counters.cancelled();
        }
        loop {
            let polled = match this.state.as_mut().project() {
                StateProjection::Over => return Poll::Ready(Ok(too_late(*this.is_grpc))),
                StateProjection::Waiting(service, request) => {
                    ready!(within(this.timer.as_ref(), || service.poll_ready(cx)))?;
                    let request = request.take().expect("a request waits once");
                    let future = within(this.timer.as_ref(), || service.call(request));
                    this.state.set(State::Working(future));
                    continue;
                }
                StateProjection::Working(future) => within(this.timer.as_ref(), || future.poll(cx)),
            };
            let response = ready!(polled)?;
            let timer = this.timer.take().filter(|_| *this.is_grpc);
            return Poll::Ready(Ok(response.map(|body| match timer {
                Some(timer) => DeadlineBody::bounded(body, timer, Arc::clone(this.counters)),
                None => DeadlineBody::new(body),
            })));
        }
    }
}

impl<S: Service<Request<B>>, B> fmt::Debug for DeadlineFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineFuture").field("timer", &self.timer).finish_non_exhaustive()
    }
}

/// Runs `f` inside the deadline, if there is one.
fn within<T>(timer: Option<&Timer>, f: impl FnOnce() -> T) -> T {
    match timer {
        Some(timer) => timer.deadline().enter(f),
        None => f(),
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
