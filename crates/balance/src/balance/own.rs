//! The endpoint that a request prefers after it has waited for connections.

use std::{
    mem,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::Instant;

use super::Shards;
use crate::{
    RequestScope,
    endpointer::{EndpointStats, Readiness},
};

/// The balancer's pick among all endpoints, for a request that has waited.
///
/// Without it, requests that have waited together would all go to the endpoint that connects first.
pub(super) enum Own<S> {
    /// The search begins: what is ready is taken immediately.
    NotYet,
    /// It has waited.
    Due,
    /// The pick connects; what is ready is taken after `until`.
    Connecting {
        service: S,
        stats: Weak<EndpointStats>,
        until: Instant,
    },
    Over,
}

/// The next step of a search.
pub(super) enum Turn<S> {
    /// It waits for its pick.
    Wait,
    /// Its pick is ready.
    Take(S, Arc<EndpointStats>),
    /// It takes whatever is ready.
    Any,
}

impl<S: Clone> Own<S> {
    /// The turn of a request; it waits for its pick for [`MAX_WAIT`], once another one is ready.
    pub(super) fn turn(&mut self, shards: &Shards<S>, scope: Option<&RequestScope>) -> Turn<S> {
        let (service, stats, until) = match mem::replace(self, Self::Due) {
            Self::NotYet => return Turn::Any,
            Self::Due if !shards.is_any(Readiness::Ready, scope) => return Turn::Any,
            Self::Due => match shards.pick_best(scope) {
                Some((service, stats)) => {
                    let until = Instant::now() + MAX_WAIT;
                    (service, Arc::downgrade(&stats), until)
                }
                None => return Turn::Any,
            },
            Self::Connecting { service, stats, until } => (service, stats, until),
            Self::Over => {
                *self = Self::Over;
                return Turn::Any;
            }
        };
        *self = Self::Over;
        match stats.upgrade() {
            Some(pick) if pick.is_ready() => Turn::Take(service, pick),
            Some(pick) if pick.readiness() == Readiness::Connecting && Instant::now() < until => {
                *self = Self::Connecting { service, stats, until };
                Turn::Wait
            }
            _ => Turn::Any,
        }
    }

    /// How long it still waits for its pick.
    pub(super) fn left(&self) -> Option<Duration> {
        match self {
            Self::Connecting { until, .. } => Some(until.saturating_duration_since(Instant::now())),
            Self::NotYet | Self::Due | Self::Over => None,
        }
    }
}

/// What a handshake takes within a region, and little beside a connect timeout.
const MAX_WAIT: Duration = Duration::from_millis(25);
