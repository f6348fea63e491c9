//! Endpoints that are busy, or connect.

use std::{
    future::poll_fn,
    sync::{Arc, Weak},
    task::Poll,
};

use tower_sd_core::BoxError;

use crate::endpointer::{EndpointStats, PollReady, Tier, Trace};

/// An endpoint that a request waits for.
pub(super) struct Waiting<S> {
    pub(super) service: S,
    pub(super) key: u64,
    pub(super) stats: Weak<EndpointStats>,
    pub(super) tier: Tier,
    pub(super) trace: Trace,
    /// Nothing is in flight: this request connects on behalf of all, as a probe does.
    pub(super) connects: bool,
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
