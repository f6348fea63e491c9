use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use tower_layer::Layer;
use tower_sd_core::BoxError;
use tower_service::Service;

use super::{CloneRequest, Protocol, RetryFuture, RetryPolicy, story::Story};

/// Puts a [`Retry`] above a service.
#[derive(Clone, Debug)]
pub struct RetryLayer<R = CloneRequest> {
    policy: Arc<RetryPolicy<R>>,
}

impl<R> RetryLayer<R> {
    /// Retries by `policy`.
    ///
    /// The services of one layer share its budget.
    ///
    /// # Panics
    ///
    /// When the settings contradict each other, see [`RetryPolicy::check`].
    pub fn new(policy: RetryPolicy<R>) -> Self {
        if let Err(error) = policy.check() {
            panic!("{error}");
        }
        Self { policy: Arc::new(policy.with_own_budget()) }
    }
}

impl<R, S> Layer<S> for RetryLayer<R> {
    type Service = Retry<S, R>;

    fn layer(&self, inner: S) -> Retry<S, R> {
        Retry { inner, policy: Arc::clone(&self.policy) }
    }
}

/// Sends a failed request again, to another instance while there is one.
///
/// A record of the instances that were tried is in scope while the inner future is polled. A
/// [`Balance`](crate::Balance) below reads and writes it, so that the request's type has no bounds.
/// The record does not cross a `Buffer` or a spawned task: with one of them between the two nothing
/// is excluded, and the attempts of a [`RetryError`](crate::RetryError) name no instance. Put the
/// `Buffer` above, or below the balancer.
///
/// A `Retry` inside another, in a handler that has clients of its own, has a record of its own. A
/// balancer alone in such a handler has not: its refusal counts as that of the whole, so what
/// stands between a `Retry` and a `Balance` must bear being repeated.
///
/// With two in one stack, as a [`RetryLayer`](crate::RetryLayer) above a client that retries by
/// itself, the record is the inner one's: a per-try timeout of the outer blames no instance and
/// excludes none. Set the timeout of the inner.
///
/// Retries are paid from a [`RetryBudget`](crate::RetryBudget), to which each success adds.
///
/// Dropping the future drops the attempt in flight, and returns what was withdrawn for the next. A
/// panic of the inner service is the caller's.
///
/// # Examples
///
/// Any request that is `Clone` will do, and a struct can name the client:
///
/// ```
/// use tower::{Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService, service_fn};
/// use tower_sd::balance::{Balance, BalanceLayer, RoundRobin};
/// use tower_sd::endpoint::Endpointer;
/// use tower_sd::retry::{Retry, RetryLayer, RetryPolicy};
/// use tower_sd::{BoxError, FixedInstancer, Instance};
///
/// /// The service of one instance.
/// type Calculator = BoxCloneSyncService<(i64, i64), i64, BoxError>;
///
/// struct App {
///     client: Retry<Balance<Calculator>>,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let instancer = FixedInstancer::new([Instance::new("good", 1), Instance::new("bad", 1)]);
/// let endpointer = Endpointer::with(&instancer, |instance| async move {
///     Ok(Calculator::new(service_fn(move |(a, b)| {
///         let bad = instance.host() == "bad";
///         async move { if bad { Err("died".into()) } else { Ok(a + b) } }
///     })))
/// });
/// let mut app = App {
///     client: ServiceBuilder::new()
///         .layer(RetryLayer::new(RetryPolicy::new().idempotent()))
///         .layer(BalanceLayer::new(RoundRobin::new()))
///         .service(endpointer),
/// };
/// for _ in 0..10 {
///     assert_eq!(app.client.ready().await?.call((2, 3)).await?, 5);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Retry<S, R = CloneRequest> {
    inner: S,
    policy: Arc<RetryPolicy<R>>,
}

impl<S, R, Req> Service<Req> for Retry<S, R>
where
    S: Service<Req, Error: Into<BoxError>> + Clone,
    R: Protocol<Req, S::Response>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = RetryFuture<S, R, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let fresh = self.inner.clone();
        // The one that was polled ready is the one that is called.
        let mut inner = mem::replace(&mut self.inner, fresh);
        let spare = match self.policy.attempts {
            1 => None,
            _ => self.policy.protocol.copy(&request),
        };
        let idempotent = self.policy.idempotent || self.policy.protocol.is_idempotent(&request);
        let story = Story::new(Arc::clone(&self.policy), idempotent);
        let is_over = story.bound.is_some_and(|bound| bound.is_zero());
        let future = (!is_over).then(|| story.scope.enter(|| inner.call(request)));
        RetryFuture::new(inner, story, spare, future)
    }
}

impl<S: Clone, R> Clone for Retry<S, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), policy: Arc::clone(&self.policy) }
    }
}
