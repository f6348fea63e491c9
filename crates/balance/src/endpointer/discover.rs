//! An adapter to tower's own notion of a changing set, `tower::discover`.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    convert::Infallible,
    fmt, mem,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use futures_util::stream::{self, Stream};
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
        let changes = Changes {
            versions: self.shared.versions(),
            shared: Arc::clone(&self.shared),
            seen: HashMap::new(),
            queue: VecDeque::new(),
            first: true,
        };
        stream::unfold(changes, |mut changes| async move {
            let change = changes.next().await?;
            Some((Ok(change), changes))
        })
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
            let refused = Signal::Refused(failure.clone(), |service, cx| {
                Service::<Req>::poll_ready(service, cx).map_err(Into::into)
            });
            shared.signal(&stats, refused);
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

struct Changes<S: 'static> {
    shared: Arc<Shared<S>>,
    versions: tokio::sync::watch::Receiver<u64>,
    /// The instances that were announced, with the key of the endpoint and its connects.
    seen: HashMap<InstanceId, (u64, u64)>,
    queue: VecDeque<Change<InstanceId, Discovered<S>>>,
    first: bool,
}

impl<S: Clone + Send + Sync + 'static> Changes<S> {
    async fn next(&mut self) -> Option<Change<InstanceId, Discovered<S>>> {
        loop {
            if let Some(change) = self.queue.pop_front() {
                return Some(change);
            }
            if !mem::take(&mut self.first) {
                self.versions.changed().await.ok()?;
            }
            self.versions.borrow_and_update();
            self.compare();
        }
    }

    fn compare(&mut self) {
        let now = self.shared.state().tiers.pickable();
        let ids: HashSet<_> = now.iter().map(|endpoint| &endpoint.stats.id).collect();
        self.seen.retain(|id, _| {
            let stays = ids.contains(id);
            if !stays {
                self.queue.push_back(Change::Remove(id.clone()));
            }
            stays
        });
        for endpoint in &now {
            let (id, stats) = (&endpoint.stats.id, &endpoint.stats);
            let current = (stats.key, stats.connects());
            if self.seen.insert(id.clone(), current) != Some(current) {
                let discovered = Discovered {
                    service: endpoint.service.clone(),
                    stats: Arc::downgrade(stats),
                    shared: Arc::downgrade(&self.shared),
                };
                self.queue.push_back(Change::Insert(id.clone(), discovered));
            }
        }
    }
}
