//! An adapter to tower's own notion of a changing set, `tower::discover`.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    fmt,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use futures_util::stream::{self, Stream, StreamExt};
use tower::discover::Change;
use tower_sd_core::{BoxError, InstanceId};
use tower_service::Service;

use super::{EndpointStats, Endpointer, Readiness, Shared, Signal};
use crate::error::Failure;

impl<S: Clone + Send + Sync + 'static> Endpointer<S> {
    /// Changes of the set, as a stream that tower's balancers take.
    ///
    /// Its members are the listed instances that want requests; while there are none, those that
    /// are held. It starts with all members, skips what came and went between two polls, and keeps
    /// the endpointer alive. An endpoint whose readiness has failed, which tower's balancers drop,
    /// is inserted again when the endpointer has connected to it.
    ///
    /// What such a balancer sends is not counted in [`EndpointStats`], and an instance that leaves
    /// waits for none of it: a request in flight has its own clone of the service.
    ///
    /// It is for what is built on tower's `Discover`; a [`Balance`](crate::Balance) needs none of
    /// it.
    pub fn changes(
        &self,
    ) -> impl Stream<Item = Result<Change<InstanceId, Discovered<S>>, Infallible>> + Send {
        let (mut versions, shared) = (self.shared.versions(), Arc::clone(&self.shared));
        // It starts with all members.
        versions.mark_changed();
        let begun = (versions, shared, HashMap::new());
        let changes = stream::unfold(begun, |(mut versions, shared, mut seen)| async move {
            versions.changed().await.ok()?;
            let changes = compare(&shared, &mut seen);
            Some((stream::iter(changes).map(Ok), (versions, shared, seen)))
        });
        changes.flatten()
    }
}

/// The service of an endpoint, for a balancer of tower's.
///
/// It reports failed readiness to the endpointer.
#[derive(Clone)]
pub struct Discovered<S: 'static> {
    service: S,
    stats: Weak<EndpointStats>,
    shared: Weak<Shared<S>>,
}

impl<S, Req> Service<Req> for Discovered<S>
where
    S: Service<Req, Error: Into<BoxError>> + Clone + Send + Sync + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = futures_util::future::MapErr<S::Future, fn(S::Error) -> BoxError>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let polled = self.service.poll_ready(cx).map_err(Into::into);
        let Poll::Ready(Err(error)) = polled else {
            return polled;
        };
        let failure = Failure::new(error);
        if let (Some(stats), Some(shared)) = (self.stats.upgrade(), self.shared.upgrade())
            && stats.leave_ready(Readiness::Down)
        {
            let refused = Signal::Refused(failure.clone());
            shared.signal(&stats, refused, |service, cx| {
                Service::<Req>::poll_ready(service, cx).map_err(Into::into)
            });
        }
        Poll::Ready(Err(failure.into()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let into: fn(S::Error) -> BoxError = Into::into;
        futures_util::TryFutureExt::map_err(self.service.call(request), into)
    }
}

impl<S> fmt::Debug for Discovered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats.upgrade();
        f.debug_struct("Discovered").field("stats", &stats).finish_non_exhaustive()
    }
}

/// What has changed; `seen` are the members so far, with their keys and connections.
fn compare<S: Clone + Send + Sync + 'static>(
    shared: &Arc<Shared<S>>,
    seen: &mut HashMap<InstanceId, (u64, u64)>,
) -> Vec<Change<InstanceId, Discovered<S>>> {
    let now = shared.state().tiers.pickable();
    let ids: HashSet<_> = now.iter().map(|endpoint| &endpoint.stats.id).collect();
    let gone = seen.extract_if(|id, _| !ids.contains(id));
    let mut changes: Vec<_> = gone.map(|(id, _)| Change::Remove(id)).collect();
    for endpoint in &now {
        let (id, stats) = (&endpoint.stats.id, &endpoint.stats);
        let current = (stats.key, stats.connects());
        if seen.insert(id.clone(), current) != Some(current) {
            let discovered = Discovered {
                service: endpoint.service.clone(),
                stats: Arc::downgrade(stats),
                shared: Arc::downgrade(shared),
            };
            changes.push(Change::Insert(id.clone(), discovered));
        }
    }
    changes
}
