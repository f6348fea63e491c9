use std::{sync::Arc, task::Poll, time::Duration};

use tokio::time::timeout;
use tower_sd_core::BoxError;

use super::{
    Shards,
    request::{Purpose, Request},
    shards::{OutOfRange, Picked},
};
use crate::{
    Limit, NoInstances, NoInstancesReason, Overloaded, RequestScope,
    endpointer::{
        EndpointStats, Full, Held, InFlight, Place, Shared, Tier, Trace,
        observer::{Event, Observers},
    },
    scope::AdmitRetry,
};

/// The endpoint that was picked first, and its readiness.
pub(super) enum First<S> {
    Nothing,
    Ready(Picked<S>),
    Pending(Picked<S>),
    Refused(Arc<EndpointStats>, BoxError),
}

impl<S> First<S> {
    pub(super) fn of<E: Into<BoxError>>(picked: Picked<S>, polled: Poll<Result<(), E>>) -> Self {
        match polled {
            Poll::Ready(Ok(())) => Self::Ready(picked),
            Poll::Ready(Err(error)) => Self::Refused(picked.1, error.into()),
            Poll::Pending => Self::Pending(picked),
        }
    }
}

/// What the clones of one balancer share.
pub(super) struct Inner<S: 'static> {
    pub(super) shards: Arc<Shards<S>>,
    pub(super) shared: Arc<Shared<S>>,
    pub(super) wait: Duration,
    pub(super) observers: Observers,
    pub(super) admit_retry: Arc<AdmitRetry>,
    /// Each request is observed, or counts by a limit.
    pub(super) is_watched: bool,
}

impl<S: Clone + Send + Sync + 'static> Inner<S> {
    /// Counts a request by the limits, if there are any: what it holds goes along with its
    /// endpoint, or with its search for one.
    pub(super) fn limited(
        &self,
        scope: Option<&RequestScope>,
        first: impl FnOnce() -> First<S>,
    ) -> Result<(First<S>, Option<Box<Held>>), Overloaded> {
        let breaker = &self.shared.breaker;
        if !breaker.is_on() {
            return Ok((first(), None));
        }
        let mut held = Box::new(Held::default());
        held.tickets.push(breaker.admit(Limit::Requests)?);
        let is_retry = scope.is_some_and(|scope| scope.n_tried() > 0);
        if let Some(scope) = scope {
            if is_retry {
                let admitted = scope.admitted().filter(|ticket| ticket.is_of(breaker));
                held.tickets.push(admitted.map_or_else(|| breaker.admit(Limit::Retries), Ok)?);
            }
            scope.limit_retries(&self.admit_retry);
        }
        // A request that decides about an ejection takes a place that no other waits for.
        let decides = || !is_retry && self.shards.is_due();
        held.is_behind = breaker.has_queue() && !decides();
        let first = match if held.is_behind { First::Nothing } else { first() } {
            First::Ready((service, stats, trace)) => match Place::take(&stats) {
                Ok(place) => First::Ready((service, stats, Trace { place, ..trace })),
                Err(Full) => First::Nothing,
            },
            first => first,
        };
        Ok((first, Some(held)))
    }

    /// Any endpoint for a caller without a request, the worse ones when no better one is left: its
    /// readiness is not polled.
    pub(super) async fn lease(&self) -> Result<(S, InFlight), NoInstances> {
        let mut versions = self.shared.versions();
        let found = async {
            loop {
                versions.borrow_and_update();
                let first = self.shards.pick(None).filter(|(_, stats, _)| stats.is_ready());
                if let Some(picked) = first {
                    return Ok(picked);
                }
                for purpose in [Purpose::Lease, Purpose::Down] {
                    let request = Request { purpose, ..Request::ANY };
                    for tier in Tier::ALL {
                        let picked = self.shards.pick_in(tier, &request).map_err(|OutOfRange| {
                            NoInstances::new(NoInstancesReason::OutOfRange, None)
                        })?;
                        if let Some(picked) = picked {
                            return Ok(picked);
                        }
                    }
                }
                let none = self.shared.why_none();
                if none.is_known() {
                    return Err(none);
                }
                // The sender is in `inner`.
                let _changed = versions.changed().await;
            }
        };
        let (service, stats, trace) = match timeout(self.wait, found).await {
            Ok(found) => found?,
            Err(_elapsed) => return Err(self.shared.why_none().waited()),
        };
        // The time for which it is held is no latency.
        Ok((service, self.begin(stats, None, Trace { started: None, ..trace })))
    }
}

impl<S> Inner<S> {
    /// The endpoint gets the request.
    pub(super) fn begin(
        &self,
        stats: Arc<EndpointStats>,
        scope: Option<&RequestScope>,
        trace: Trace,
    ) -> InFlight {
        self.observers.on(&Event::Picked { endpoint: &stats, tier: trace.tier });
        InFlight::begin(stats, scope, &self.observers, trace)
    }
}
