use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::Instant;
use tower_layer::Layer;
use tower_sd_core::BoxError;
use tower_service::Service;

use super::{HedgeFuture, HedgePolicy, shared::Shared};
use crate::{CloneRequest, Protocol, RequestScope, RetryLayer, RetryPolicy};

/// Puts a [`Hedge`] above a service.
#[derive(Clone, Debug)]
pub struct HedgeLayer<R = CloneRequest> {
    shared: Arc<Shared<R>>,
}

/// Sends a request that has no answer yet to a second instance too.
///
/// The first good answer is the caller's.
///
/// It stands directly above a [`Balance`](crate::Balance), and below the
/// [`Retry`](crate::Retry) of a client that has both: see
/// [`RetryPolicy::hedged`](crate::RetryPolicy::hedged).
///
/// - **Another instance**: one that is ready and has not got the request; where there is none, or
///   where a `Buffer` hides which one has it, no hedge is sent.
/// - **Only what may be repeated**: by the [`Protocol`], once the body has been sent whole.
/// - **Bounded**: by the share of
///   [`max_extra_load`](HedgePolicy::max_extra_load), and by a [`RetryBudget`](crate::RetryBudget).
/// - **Good answer**: a success in the sense of [`Protocol::outcome`] that is no rejection. When
///   one attempt fails, the other goes on; when both do, the last failure is the caller's.
/// - **Other attempt**: it is dropped, and ends as [`Cancelled`](crate::Outcome::Cancelled) in the
///   statistics of its endpoint.
///
/// Dropping the future drops both attempts, and returns what was withdrawn for one that was not
/// sent. A panic of the inner service is the caller's.
///
/// ```
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_sd::balance::BalanceLayer;
/// use tower_sd::endpoint::Endpointer;
/// use tower_sd::retry::{HedgePolicy, RetryPolicy};
/// use tower_sd::{BoxError, FixedInstancer, Instance};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let instancer = FixedInstancer::new([Instance::new("a", 1), Instance::new("b", 1)]);
/// let endpointer = Endpointer::with(&instancer, |_| async {
///     Ok(service_fn(|n: u32| async move { Ok::<_, BoxError>(n) }))
/// });
/// let (retry, hedge) = RetryPolicy::new().idempotent().hedged(HedgePolicy::percentile(95));
/// let client = ServiceBuilder::new()
///     .layer(retry)
///     .layer(hedge)
///     .layer(BalanceLayer::default())
///     .service(endpointer);
/// assert_eq!(client.oneshot(7).await?, 7);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Hedge<S, R = CloneRequest> {
    inner: S,
    shared: Arc<Shared<R>>,
}

impl<R> HedgeLayer<R> {
    /// Hedges by `policy`.
    ///
    /// The services of one layer share their latencies and bounds.
    ///
    /// # Panics
    ///
    /// When a setting is out of range, see [`HedgePolicy::check`].
    pub fn new(policy: HedgePolicy<R>) -> Self {
        if let Err(error) = policy.check() {
            panic!("{error}");
        }
        Self { shared: Arc::new(Shared::new(policy)) }
    }
}

impl<R, S> Layer<S> for HedgeLayer<R> {
    type Service = Hedge<S, R>;

    fn layer(&self, inner: S) -> Hedge<S, R> {
        Hedge { inner, shared: Arc::clone(&self.shared) }
    }
}

impl<S, R, Req> Service<Req> for Hedge<S, R>
where
    S: Service<Req, Error: Into<BoxError>> + Clone,
    R: Protocol<Req, S::Response>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = HedgeFuture<S, R, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let fresh = self.inner.clone();
        // The one that was polled ready is the one that is called.
        let mut inner = mem::replace(&mut self.inner, fresh);
        let (shared, now) = (Arc::clone(&self.shared), Instant::now());
        let protocol = &shared.policy.protocol;
        let is_safe = shared.policy.idempotent || protocol.is_idempotent(&request);
        let delay = shared.delay().filter(|_| is_safe);
        let spare = delay.and_then(|delay| Some((delay, protocol.copy(&request)?)));
        shared.load.deposit(now);
        let scope = RequestScope::current().unwrap_or_default();
        let n_tried = scope.n_tried();
        let first = scope.enter(|| inner.call(request));
        HedgeFuture::new(inner, first, spare, (scope, n_tried), (shared, is_safe.then_some(now)))
    }
}

impl<S: Clone, R> Clone for Hedge<S, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<R> RetryPolicy<R> {
    /// The layers of a client that repeats and hedges.
    ///
    /// The hedge stands below the retry: each attempt may be hedged. Both have one budget, one
    /// protocol, and this policy's observers and [`idempotent`](Self::idempotent).
    ///
    /// # Panics
    ///
    /// When the settings of one contradict each other, see [`check`](Self::check) and
    /// [`HedgePolicy::check`].
    pub fn hedged(self, hedge: HedgePolicy) -> (RetryLayer<R>, HedgeLayer<R>)
    where
        R: Clone,
    {
        let retry = self.with_own_budget();
        let mut hedge = hedge.protocol(retry.protocol.clone());
        hedge.idempotent |= retry.idempotent;
        (hedge.budget, hedge.pays) = (retry.paying().cloned(), false);
        hedge.observers = hedge.observers.with(retry.observers.all.iter().cloned());
        (RetryLayer::new(retry), HedgeLayer::new(hedge))
    }
}
