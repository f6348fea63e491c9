use std::{any::Any, fmt, ops::Deref, sync::Arc, time::Duration};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use crate::{
    BoxError, Error, ErrorKind, Freshness, PublisherStats, Result, Snapshot, counters::Counters,
};

/// Follows one service: hands out [`Subscription`]s.
///
/// # Contract
///
/// - [`subscribe`](Self::subscribe) returns immediately; the subscription has the latest snapshot
///   from the start.
/// - The loop behind it lives while the instancer or any subscription lives; then it and its I/O
///   end immediately.
/// - A slow subscriber skips intermediate snapshots and blocks no other.
///
/// # Implementing
///
/// A backend implements [`Source`](crate::Source) and hands it to a [`Follower`](crate::Follower),
/// which is an instancer. A filter is a [`FilteredInstancer`](crate::FilteredInstancer); a merge
/// owns a [`Publisher`](crate::Publisher).
#[doc(alias = "Discover")]
#[doc(alias = "Resolver")]
pub trait Instancer: Send + Sync + 'static {
    /// A subscription of its own for the caller.
    fn subscribe(&self) -> Subscription;
}

/// `Arc` and `Box`.
impl<T: Deref<Target: Instancer> + Send + Sync + 'static> Instancer for T {
    fn subscribe(&self) -> Subscription {
        (**self).subscribe()
    }
}

/// The latest [`Snapshot`] of one service, now and whenever it changes.
///
/// # Drop
///
/// Keeps the loop behind it alive; with the last subscription and the instancer gone the loop ends
/// immediately.
#[derive(Clone)]
pub struct Subscription {
    service: Arc<str>,
    pub(crate) snapshots: watch::Receiver<Snapshot>,
    nudge: Arc<Notify>,
    counters: Counters,
    _keep_alive: Option<Arc<dyn Any + Send + Sync>>,
}

impl Subscription {
    pub(crate) fn new(
        service: &str,
        snapshots: watch::Receiver<Snapshot>,
        nudge: Arc<Notify>,
        counters: Counters,
    ) -> Self {
        Self { service: service.into(), snapshots, nudge, counters, _keep_alive: None }
    }

    /// The name of the service that is followed, or of the source if it has none.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The same subscription, which also keeps `owner` alive.
    ///
    /// An owner is a [`TaskGroup`](crate::TaskGroup), for example. It serves authors of an
    /// instancer of their own.
    #[must_use]
    pub fn with_owner(self, owner: Arc<dyn Any + Send + Sync>) -> Self {
        Self { _keep_alive: Some(owner), ..self }
    }

    /// One that shows these snapshots in place of its own, and passes on everything else.
    pub(crate) fn showing(&self, snapshots: watch::Receiver<Snapshot>) -> Self {
        Self::new(&self.service, snapshots, Arc::clone(&self.nudge), self.counters.clone())
    }

    /// The latest snapshot.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshots.borrow().clone()
    }

    /// Waits for a snapshot that this subscription has not returned from here.
    ///
    /// Returns the latest.
    ///
    /// Freshness is part of a snapshot: becoming stale is a change, and so is becoming fresh again.
    /// A later error of the same trouble is not.
    ///
    /// # Errors
    ///
    /// `Closed`: the loop has ended (its instancer was closed), no snapshot will come any more.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no snapshot is lost.
    pub async fn changed(&mut self) -> Result<Snapshot> {
        match self.snapshots.changed().await {
            Ok(()) => Ok(self.snapshots.borrow_and_update().clone()),
            Err(closed) => Err(closed_error().with_source(closed)),
        }
    }

    /// Waits for the registry's first answer, at most `bound`.
    ///
    /// Returns the snapshot.
    ///
    /// # Errors
    ///
    /// `Timeout`, with the last failure as its source; `Closed` when the loop has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn ready(&mut self, bound: Duration) -> Result<Snapshot> {
        let synced = self.snapshots.wait_for(|snapshot| snapshot.freshness.is_synced());
        let cause = match timeout(bound, synced).await {
            Ok(Ok(snapshot)) => return Ok(snapshot.clone()),
            Ok(Err(closed)) => return Err(closed_error().with_source(closed)),
            Err(elapsed) => BoxError::from(elapsed),
        };
        let cause = match self.snapshot().freshness {
            Freshness::NeverSynced { error: Some(error) } => error.into(),
            _ => cause,
        };
        let message = format!("the registry has not answered within {bound:?}");
        Err(Error::new(ErrorKind::Timeout, "core", "ready")
            .with_message(message)
            .with_source(cause))
    }

    /// Requests a new read, because endpoints fail.
    ///
    /// Never blocks; the loop limits the rate.
    pub fn refresh(&self) {
        self.nudge.notify_one();
    }

    /// What the publisher behind it has counted so far.
    pub fn stats(&self) -> PublisherStats {
        self.counters.read()
    }

    /// Returns the latest snapshot and every change as a stream.
    ///
    /// It ends when the loop ends.
    pub fn into_stream(mut self) -> BoxStream<'static, Snapshot> {
        self.snapshots.mark_changed();
        stream::unfold(self, |mut subscription| async move {
            let snapshot = subscription.changed().await.ok()?;
            Some((snapshot, subscription))
        })
        .boxed()
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("snapshot", &self.snapshot()).finish_non_exhaustive()
    }
}

fn closed_error() -> Error {
    Error::new(ErrorKind::Closed, "core", "follow")
}
