use std::{sync::Arc, time::Duration};

use tower_sd_core::BoxError;

use super::Shards;
use crate::{
    RequestScope,
    endpointer::{
        EndpointStats, InFlight, Shared, Tier, Trace,
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
    pub(super) is_observed: bool,
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
