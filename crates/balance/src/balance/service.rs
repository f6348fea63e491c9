use std::{
    fmt, future,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use fastrand::Rng;
use tower_layer::Layer;
use tower_sd_core::BoxError;
use tower_service::Service;

use super::{
    Balancer, LeastLoaded, ResponseFuture, Shards,
    inner::{First, Inner},
    slow_path::obtain,
    waiting::poll_now,
};
use crate::{
    Endpointer, Limit, NoInstances, RequestScope,
    endpointer::{Held, InFlight, Tier, Trace, observer::Event},
    scope,
};

/// Turns an [`Endpointer`] into a [`Balance`].
///
/// It stands directly above the endpointer. A layer for each endpoint, such as a timeout, goes on
/// the factory.
#[derive(Clone)]
#[must_use]
pub struct BalanceLayer {
    balancer: Arc<dyn Balancer>,
    wait: Duration,
    seed: Option<u64>,
}

impl BalanceLayer {
    /// Chooses with `balancer`.
    pub fn new(balancer: impl Balancer) -> Self {
        Self { balancer: Arc::new(balancer), wait: WAIT, seed: None }
    }

    /// Bounds the time that a request waits for an endpoint. Defaults to 1 s.
    ///
    /// That is longer than a restart of the last instance takes to be noticed. When it is certain
    /// that there is no instance, a request does not wait.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.wait = timeout;
        self
    }

    /// Derives all chance from this seed: for tests.
    ///
    /// Defaults to one from the operating system.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

impl<S: Clone + Send + Sync + 'static> Layer<Endpointer<S>> for BalanceLayer {
    type Service = Balance<S>;

    fn layer(&self, endpointer: Endpointer<S>) -> Balance<S> {
        let seeds = self.seed.map_or_else(Rng::new, Rng::with_seed);
        let shards = Arc::new(Shards::new(Arc::clone(&self.balancer), seeds));
        let shared = endpointer.shared;
        shared.attach(&shards);
        let observers = shared.observers.with(self.balancer.observer());
        let is_watched = observers.watch_requests() || shared.breaker.is_on();
        let (breaker, told) = (Arc::clone(&shared.breaker), observers.clone());
        let admit_retry = Arc::new(move || {
            let admitted = breaker.admit(Limit::Retries);
            admitted.inspect_err(|error| told.on(&Event::Refused { error }))
        });
        let wait = self.wait;
        Balance {
            inner: Arc::new(Inner { shards, shared, wait, observers, admit_retry, is_watched }),
        }
    }
}

/// With [`LeastLoaded`].
impl Default for BalanceLayer {
    fn default() -> Self {
        Self::new(LeastLoaded::new())
    }
}

impl fmt::Debug for BalanceLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceLayer")
            .field("balancer", &self.balancer)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

/// Sends each request to one endpoint of an [`Endpointer`](crate::Endpointer).
///
/// - **Any request type**: it has no bounds. The balancer is not part of the type, so that a struct
///   can name it.
/// - **Always ready**: `poll_ready` reserves nothing. When an endpoint is busy, connects or
///   refuses, another is picked before the request is given away: no copy of it is needed, and no
///   retry is spent.
/// - **Down** endpoints get no requests until they have connected; the endpointer probes them with
///   growing pauses.
/// - **Busy** endpoints stay what they are. When all are busy, the first that becomes ready gets
///   the request.
/// - **Overloaded**: above a [limit](crate::Limits) a request fails immediately.
/// - **Connecting**: requests that wait for the first connections are spread over those that come
///   about within 25 ms of the first.
/// - **No instance**: [`NoInstances`], immediately when that is known, else after a
///   [bounded wait](crate::BalanceLayer::ready_timeout).
/// - Below a [`Retry`](crate::Retry) the endpoints that were tried for a request are left out while
///   others are left.
///
/// `Clone` is one `Arc`. Dropping a request in flight leaves nothing behind but its end.
#[derive(Clone)]
pub struct Balance<S: 'static> {
    inner: Arc<Inner<S>>,
}

impl<S: Clone + Send + Sync + 'static> Balance<S> {
    /// Picks an endpoint for a caller that does not use tower.
    ///
    /// Returns a clone of its service, and the guard, which must be kept as long as it is used.
    /// [`Limits`](crate::Limits) do not apply, and its latency is not measured.
    ///
    /// # Errors
    ///
    /// No instance is available, or none within the bounded wait.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn lease(&self) -> Result<(S, InFlight), NoInstances> {
        self.inner.lease().await
    }

    /// The index that the balancer chooses in the set of this moment.
    ///
    /// For benchmarks: the cost of the choice, without service and guard.
    #[doc(hidden)]
    #[inline]
    pub fn choose(&self) -> Option<usize> {
        self.inner.shards.choose()
    }
}

impl<S, Req> Service<Req> for Balance<S>
where
    S: Service<Req, Error: Into<BoxError>> + Clone + Send + Sync + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        if self.inner.is_watched || scope::is_entered() {
            return self.call_watched(request);
        }
        let Some((mut service, stats, started)) = self.inner.shards.pick_plain() else {
            return self.call_watched(request);
        };
        if !stats.is_ready() {
            return self.send(First::Nothing, None, None, request);
        }
        let polled = poll_now(|cx| service.poll_ready(cx));
        if let Poll::Ready(Ok(())) = polled
            && !stats.takes_guards
        {
            return ResponseFuture::plain(service, request, stats, started);
        }
        let trace = Trace { started, ..Trace::of(Tier::Ready) };
        self.send(First::of((service, stats, trace), polled), None, None, request)
    }
}

impl<S> Balance<S>
where
    S: Clone + Send + Sync + 'static,
{
    /// Picks an endpoint, and polls its readiness.
    fn first<Req>(&self, scope: Option<&RequestScope>) -> First<S>
    where
        S: Service<Req, Error: Into<BoxError>>,
    {
        match self.inner.shards.pick(scope) {
            Some((mut service, stats, trace)) if stats.is_ready() => {
                let polled = poll_now(|cx| poll_ready(&mut service, cx));
                First::of((service, stats, trace), polled)
            }
            Some(_) | None => First::Nothing,
        }
    }

    fn call_watched<Req>(&self, request: Req) -> ResponseFuture<S, Req>
    where
        S: Service<Req, Error: Into<BoxError>>,
    {
        let (inner, scope) = (&self.inner, RequestScope::current());
        match inner.limited(scope.as_ref(), || self.first::<Req>(scope.as_ref())) {
            Ok((first, held)) => self.send(first, held, scope, request),
            Err(error) => {
                inner.observers.on(&Event::Refused { error: &error });
                let refused = Box::pin(future::ready(Err(error.into())));
                ResponseFuture::obtaining(refused, request, scope)
            }
        }
    }

    #[cold]
    fn send<Req>(
        &self,
        first: First<S>,
        held: Option<Box<Held>>,
        scope: Option<RequestScope>,
        request: Req,
    ) -> ResponseFuture<S, Req>
    where
        S: Service<Req, Error: Into<BoxError>>,
    {
        if let First::Ready((service, stats, trace)) = first {
            let trace = Trace { held, ..trace };
            let guard = self.inner.begin(stats, scope.as_ref(), trace);
            return ResponseFuture::watched(service, request, guard, scope);
        }
        let inner = Arc::clone(&self.inner);
        let obtain = obtain(inner, poll_ready::<S, Req>, first, (scope.clone(), held));
        ResponseFuture::obtaining(Box::pin(obtain), request, scope)
    }
}

/// As a function pointer it does not name the request's type: its holder may outlive borrowed
/// requests.
fn poll_ready<S, Req>(service: &mut S, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>
where
    S: Service<Req, Error: Into<BoxError>>,
{
    scope::leave(|| service.poll_ready(cx)).map_err(Into::into)
}

impl<S> fmt::Debug for Balance<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance").finish_non_exhaustive()
    }
}

const WAIT: Duration = Duration::from_secs(1);
