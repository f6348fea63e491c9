//! What a request waits for: endpoints that are busy, or connect.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{task::coop::unconstrained, time::Instant};
use tower_sd_core::BoxError;

use super::{Shards, shards::Picked};
use crate::{
    RequestScope,
    endpointer::{EndpointStats, PollReady, Readiness, Tier, Trace},
};

/// An endpoint that a request waits for.
pub(super) struct Waiting<S> {
    pub(super) service: S,
    pub(super) key: u64,
    pub(super) stats: Weak<EndpointStats>,
    pub(super) trace: Trace,
    /// Nothing is in flight: this request connects on behalf of all, as a probe does.
    pub(super) connects: bool,
}

/// Polls readiness without a waker: a service that is not ready now is polled again in
/// [`first_ready`].
///
/// Tokio answers a task that has run for long that nothing is ready: what seems so is polled again,
/// unconstrained.
#[inline]
pub(super) fn poll_now<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    match poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => poll_unconstrained(poll),
        ready @ Poll::Ready(_) => ready,
    }
}

#[cold]
fn poll_unconstrained<T>(poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    pin!(unconstrained(poll_fn(poll))).poll(&mut Context::from_waker(Waker::noop()))
}

/// The first that becomes ready, or refuses; that one is taken out. Pending while there is none.
///
/// Cancel safe.
pub(super) async fn first_ready<S>(
    waiting: &mut Vec<Waiting<S>>,
    poll_ready: PollReady<S>,
) -> (Waiting<S>, Arc<EndpointStats>, Result<(), BoxError>) {
    poll_fn(|cx| {
        let mut index = 0;
        while let Some(one) = waiting.get_mut(index) {
            let Poll::Ready(ready) = poll_ready(&mut one.service, cx) else {
                index += 1;
                continue;
            };
            let one = waiting.swap_remove(index);
            // It may have left, and finished, meanwhile.
            if let Some(stats) = one.stats.upgrade() {
                return Poll::Ready((one, stats, ready));
            }
        }
        Poll::Pending
    })
    .await
}

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

impl<S: Clone> Own<S> {
    /// Its pick, or any endpoint that is ready for `None`; pending while it waits for its pick, for
    /// [`MAX_WAIT`] once another one is ready.
    pub(super) fn turn(
        &mut self,
        shards: &Shards<S>,
        scope: Option<&RequestScope>,
    ) -> Poll<Option<Picked<S>>> {
        let (service, stats, until) = match mem::replace(self, Self::Due) {
            Self::Due if shards.any(&Tier::ALL, scope, EndpointStats::is_ready) => {
                match shards.pick_best(scope) {
                    Some((service, stats)) => {
                        (service, Arc::downgrade(&stats), Instant::now() + MAX_WAIT)
                    }
                    None => return Poll::Ready(None),
                }
            }
            Self::NotYet | Self::Due => return Poll::Ready(None),
            Self::Connecting { service, stats, until } => (service, stats, until),
            Self::Over => {
                *self = Self::Over;
                return Poll::Ready(None);
            }
        };
        *self = Self::Over;
        match stats.upgrade() {
            Some(pick) if pick.is_ready() => {
                Poll::Ready(Some((service, pick, Trace::of(Tier::Ready))))
            }
            Some(pick) if pick.readiness() == Readiness::Connecting && Instant::now() < until => {
                *self = Self::Connecting { service, stats, until };
                Poll::Pending
            }
            _ => Poll::Ready(None),
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
