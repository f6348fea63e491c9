use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tower_sd_core::BoxError;
use tower_service::Service;

use super::{
    Cell, ResponseFuture,
    search::{First, obtain, obtain_any},
};
use crate::{
    NoInstances,
    attempt::{self, Record},
    endpointer::{InFlight, Shared},
};

/// Sends each request to one endpoint of an [`Endpointer`](crate::Endpointer).
///
/// - **Any request type**: nothing is asked of it. The balancer is not part of the type, so that a struct can name it.
/// - **Always ready**: `poll_ready` reserves nothing. When an endpoint is busy, connects or refuses, another is picked
///   before the request is given away: no copy of it is needed, and no retry is spent.
/// - **Down** endpoints get no requests until they have connected; the endpointer probes them with growing pauses.
/// - **Busy** endpoints stay what they are. When all are busy, the first that becomes ready gets the request.
/// - **No instance**: [`NoInstances`], immediately when that is known, else after a
///   [bounded wait](crate::BalanceLayer::ready_timeout).
/// - Below a [`Retry`](crate::Retry) the endpoints that were tried for a request are left out while others are left.
///
/// `Clone` is one `Arc`. Dropping a request in flight leaves nothing behind but its end.
pub struct Balance<S: 'static> {
    inner: Arc<Inner<S>>,
}

pub(super) struct Inner<S: 'static> {
    pub(super) cell: Arc<Cell<S>>,
    pub(super) shared: Arc<Shared<S>>,
    pub(super) wait: Duration,
}

impl<S: Clone + Send + Sync + 'static> Balance<S> {
    pub(super) fn new(cell: Arc<Cell<S>>, shared: Arc<Shared<S>>, wait: Duration) -> Self {
        Self { inner: Arc::new(Inner { cell, shared, wait }) }
    }

    /// Picks an endpoint for a caller that does not speak tower: a clone of its service, and the lease to be kept for as
    /// long as it is used.
    ///
    /// # Errors
    ///
    /// There is nobody, or nobody within the bounded wait.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn lease(&self) -> Result<(S, InFlight), NoInstances> {
        obtain_any(&self.inner).await
    }

    /// The index that the balancer chooses in the set of this moment, which may be another a moment later: what the
    /// choice alone costs, without service and lease.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn choose(&self) -> Option<usize> {
        self.inner.cell.choose()
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
        let record = attempt::current();
        let first = match self.inner.cell.pick(record.as_deref()) {
            Some((mut service, mut lease)) if lease.stats().is_ready() => {
                // Polled without a waker: one that is not ready now is polled again on the slow path.
                let ready = service.poll_ready(&mut Context::from_waker(Waker::noop()));
                if let Poll::Ready(Ok(())) = ready {
                    if let Some(record) = &record {
                        let attempt = record.sent(lease.stats().key, lease.instance());
                        lease.set_attempt(attempt);
                    }
                    return ResponseFuture::calling(service, request, lease, record.is_some());
                }
                let ready = ready.map_err(Into::into);
                Some(First { lease, service, ready })
            }
            Some(_) | None => None,
        };
        self.call_slowly(first, record, request)
    }
}

impl<S> Balance<S> {
    #[cold]
    fn call_slowly<Req>(
        &self,
        first: Option<First<S>>,
        record: Option<Arc<Record>>,
        request: Req,
    ) -> ResponseFuture<S, Req>
    where
        S: Service<Req, Error: Into<BoxError>> + Clone + Send + Sync + 'static,
    {
        let is_scoped = record.is_some();
        let obtain = obtain(Arc::clone(&self.inner), poll_ready::<S, Req>, first, record);
        ResponseFuture::obtaining(Box::pin(obtain), request, is_scoped)
    }
}

/// As a function pointer it does not name the request's type: what holds it may outlive borrowed requests.
fn poll_ready<S, Req>(service: &mut S, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>
where
    S: Service<Req, Error: Into<BoxError>>,
{
    service.poll_ready(cx).map_err(Into::into)
}

impl<S> Clone for Balance<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<S> fmt::Debug for Balance<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance").finish_non_exhaustive()
    }
}
