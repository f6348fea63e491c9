use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::RequestScope;

/// Enters a [`RequestScope`] around each request.
///
/// It has the key of hashing balancers, and excludes tried instances for retries and hedges of
/// other crates.
///
/// ```
/// use tower_sd::endpoint::{RequestScope, ScopeLayer};
///
/// let by_user = ScopeLayer::new(|user: &u64| RequestScope::new().with_key(*user));
/// # let _ = by_user;
/// ```
#[derive(Clone, Debug)]
pub struct ScopeLayer<F> {
    scope: F,
}

/// A service inside a [`ScopeLayer`].
#[derive(Clone)]
pub struct Scoped<S, F> {
    inner: S,
    scope: F,
}

/// A future inside a [`RequestScope`].
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct ScopedFuture<F> {
    #[pin]
    inner: F,
    scope: RequestScope,
}

impl<F> ScopeLayer<F> {
    /// Enters the scope that `scope` returns for the request.
    ///
    /// Clones of a scope are the same request.
    pub fn new<Req>(scope: F) -> Self
    where
        F: Fn(&Req) -> RequestScope,
    {
        Self { scope }
    }
}

impl<S, F: Clone> Layer<S> for ScopeLayer<F> {
    type Service = Scoped<S, F>;

    fn layer(&self, inner: S) -> Scoped<S, F> {
        Scoped { inner, scope: self.scope.clone() }
    }
}

impl<S, F, Req> Service<Req> for Scoped<S, F>
where
    S: Service<Req>,
    F: Fn(&Req) -> RequestScope,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ScopedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let scope = (self.scope)(&request);
        ScopedFuture { inner: scope.enter(|| self.inner.call(request)), scope }
    }
}

impl<F: Future> Future for ScopedFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.scope.enter(|| this.inner.poll(cx))
    }
}

impl<S: fmt::Debug, F> fmt::Debug for Scoped<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scoped").field("inner", &self.inner).finish_non_exhaustive()
    }
}
