use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use pin_project::pin_project;
use tokio::time::{Sleep, sleep_until};
use tonic::{Status, body::Body};
use tower_layer::Layer;
use tower_sd_balance::{BoxError, CallerDeadline, RequestScope};
use tower_sd_http::{Idempotent, ReplayBody};
use tower_service::Service;

use crate::{code, deadline::Deadline};

/// Adapts a stack of layers to generated clients.
///
/// It stands on top, above a `RetryLayer`.
///
/// - Requests get a body that can be sent again (up to 64 KiB of it).
/// - `grpc-timeout` bounds the whole call: attempts, pauses and the answer. Each attempt sends its
///   server the rest of it. So does the deadline of the request that the caller is serving.
/// - Errors become a [`Status`]: UNAVAILABLE when there is no instance, RESOURCE_EXHAUSTED above a
///   [limit](tower_sd_balance::Limits), DEADLINE_EXCEEDED when the time is over, otherwise the last
///   attempt's; its message lists the attempts, and its source is the whole error.
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_sd::balance::{BalanceLayer, RoundRobin};
/// use tower_sd::endpoint::Endpointer;
/// use tower_sd::grpc::{GrpcFactory, GrpcLayer, GrpcProtocol};
/// use tower_sd::retry::{RetryLayer, RetryPolicy};
/// use tower_sd::{FixedInstancer, Instance};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let instancer = FixedInstancer::new([Instance::new("127.0.0.1", 50051)]);
/// let stack = ServiceBuilder::new()
///     .layer(GrpcLayer::new().idempotent(["shop.Catalogue", "shop.Orders/Get"]))
///     .layer(RetryLayer::new(RetryPolicy::new().protocol(GrpcProtocol::new())))
///     .layer(BalanceLayer::new(RoundRobin::new()))
///     .service(Endpointer::new(&instancer, GrpcFactory::new()));
/// # let _ = stack;
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct GrpcLayer {
    methods: Vec<String>,
    is_detached: bool,
}

/// What [`GrpcLayer`] makes.
#[derive(Clone, Debug)]
pub struct Grpc<S> {
    inner: S,
    methods: Arc<[String]>,
    is_detached: bool,
}

/// The future of a [`Grpc`] service: resolves to the response of a call.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct GrpcFuture<F> {
    #[pin]
    inner: F,
    /// The timer ends a call of a stack without a retry.
    deadline: Option<(Deadline, RequestScope, Pin<Box<Sleep>>)>,
}

/// Marks a request whose answer may be read to its end before it is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unary;

impl GrpcLayer {
    /// No method is known to be idempotent.
    pub fn new() -> Self {
        Self::default()
    }

    /// Treats these unary methods as idempotent.
    ///
    /// The form is `package.Service/Method`,
    /// or `package.Service` for all of a service whose methods are all unary.
    ///
    /// Their answers are read to the end, up to 64 KiB, before a retry decides, so that a status in
    /// trailers counts too. For a single request, whatever its kind, there is [`Idempotent`].
    pub fn idempotent<M: Into<String>>(mut self, methods: impl IntoIterator<Item = M>) -> Self {
        self.methods.extend(methods.into_iter().map(Into::into));
        self
    }

    /// Ignores the deadline of the request that the caller itself is serving.
    ///
    /// By default a call inside a server has it, its stream included: see
    /// [`CallerDeadline`](tower_sd_balance::CallerDeadline). The retry policy has a setting
    /// [of its own](tower_sd_balance::RetryPolicy::without_caller_deadline).
    pub fn without_caller_deadline(self) -> Self {
        Self { is_detached: true, ..self }
    }
}

impl<S> Layer<S> for GrpcLayer {
    type Service = Grpc<S>;

    fn layer(&self, inner: S) -> Grpc<S> {
        let Self { methods, is_detached } = self;
        Grpc { inner, methods: methods.as_slice().into(), is_detached: *is_detached }
    }
}

impl<S> Grpc<S> {
    fn names(&self, path: &str) -> bool {
        let Some(path) = path.strip_prefix('/') else {
            return false;
        };
        let service = path.split_once('/').map_or(path, |(service, _)| service);
        self.methods.iter().any(|named| named == path || named == service)
    }
}

impl<S, R> Service<Request<Body>> for Grpc<S>
where
    S: Service<Request<ReplayBody<Body>>, Response = Response<R>, Error: Into<BoxError>>,
{
    type Response = Response<R>;
    type Error = Status;
    type Future = GrpcFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner.poll_ready(cx).map_err(|error| code::of_error(error.into()))
    }

    fn call(&mut self, mut request: Request<Body>) -> GrpcFuture<S::Future> {
        let caller = CallerDeadline::current().filter(|_| !self.is_detached);
        let at = caller.map(|caller| caller.at());
        let deadline = Deadline::before(Deadline::of(&request), at, caller);
        if let Some(deadline) = deadline {
            request.extensions_mut().insert(deadline);
        }
        if self.names(request.uri().path()) {
            request.extensions_mut().insert(Idempotent);
            request.extensions_mut().insert(Unary);
        }
        let request = request.map(ReplayBody::new);
        let Some(deadline) = deadline else {
            return GrpcFuture { inner: self.inner.call(request), deadline: None };
        };
        // A retry ends the call by it, and has the reason why there is no answer.
        let scope = RequestScope::current().unwrap_or_default().with_deadline(deadline.at());
        let inner = scope.enter(|| self.inner.call(request));
        let timer = Box::pin(sleep_until(deadline.at() + GRACE));
        GrpcFuture { inner, deadline: Some((deadline, scope, timer)) }
    }
}

impl<F, R, E> Future for GrpcFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<R>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = match this.deadline {
            Some((_, scope, _)) => scope.enter(|| this.inner.poll(cx)),
            None => this.inner.poll(cx),
        };
        if let Poll::Ready(outcome) = polled {
            return Poll::Ready(outcome.map_err(|error| code::of_error(error.into())));
        }
        match this.deadline {
            Some((deadline, _, timer)) => timer.as_mut().poll(cx).map(|()| Err(deadline.status())),
            None => Poll::Pending,
        }
    }
}

/// Longer than the timers of a retry are late.
const GRACE: Duration = Duration::from_millis(5);

impl<F> fmt::Debug for GrpcFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcFuture").finish_non_exhaustive()
    }
}
