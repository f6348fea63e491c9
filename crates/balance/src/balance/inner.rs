use std::{sync::Arc, time::Duration};

use tower_sd_core::BoxError;

use super::Shards;
use crate::{
    Limit, Overloaded, RequestScope,
    endpointer::{
        EndpointStats, Full, Held, InFlight, Place, Shared, Tier, Trace,
        observer::{Event, Observers},
    },
};

/// The endpoint that was picked first, and its readiness.
pub(super) enum First<S> {
    Nothing,
    Ready(S, Arc<EndpointStats>, Trace),
    Pending(S, Arc<EndpointStats>, Trace),
    Refused(Arc<EndpointStats>, BoxError),
}

/// What the clones of one balancer share.
pub(super) struct Inner<S: 'static> {
    pub(super) shards: Arc<Shards<S>>,
    pub(super) shared: Arc<Shared<S>>,
    pub(super) wait: Duration,
    pub(super) observers: Observers,
    /// Each request is observed, or counts by a limit.
    pub(super) is_watched: bool,
}

impl<S: Clone + Send + Sync + 'static> Inner<S> {
    /// Counts a request by the limits: what it holds goes along with its endpoint, or with its
    /// search for one.
    pub(super) fn limited(
        &self,
        first: impl FnOnce() -> First<S>,
        scope: Option<&RequestScope>,
    ) -> Result<(First<S>, Option<Box<Held>>), Overloaded> {
        let breaker = self.shared.breaker();
        let mut held = Box::new(Held::default());
        held.tickets.push(breaker.admit(Limit::Requests)?);
        if let Some(scope) = scope {
            if scope.n_tried() > 0 {
                let admitted = scope.admitted().map_or_else(|| breaker.admit(Limit::Retries), Ok);
                held.tickets.push(admitted?);
            }
            let (breaker, observers) = (Arc::clone(breaker), self.observers.clone());
            scope.limit_retries(Box::new(move || {
                let admitted = breaker.admit(Limit::Retries);
                admitted.inspect_err(|error| observers.on(&Event::Refused { error }))
            }));
        }
        // A request that decides about an ejection takes a place that no other waits for.
        let decides = self.shards.is_due() && scope.is_none_or(|scope| scope.n_tried() == 0);
        held.is_behind = breaker.has_queue() && !decides;
        let first = match if held.is_behind { First::Nothing } else { first() } {
            First::Ready(service, stats, trace) => match Place::take(&stats) {
                Ok(place) => {
                    held.place = place;
                    let trace = Trace { held: Some(held), ..trace };
                    return Ok((First::Ready(service, stats, trace), None));
                }
                Err(Full) => First::Nothing,
            },
            first => first,
        };
        Ok((first, Some(held)))
    }
}

impl<S> Inner<S> {
    /// The endpoint gets the request.
    pub(super) fn begin(
        &self,
        stats: Arc<EndpointStats>,
        scope: Option<&RequestScope>,
        tier: Tier,
        trace: Trace,
    ) -> InFlight {
        self.observers.on(&Event::Picked { endpoint: &stats, tier });
        InFlight::begin(stats, scope, &self.observers, trace)
    }
}
