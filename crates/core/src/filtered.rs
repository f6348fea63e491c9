use std::sync::{Arc, Mutex};

use tokio::{select, sync::watch};

use crate::{
    Error, ErrorKind, Instancer, Snapshot, Subscription, TaskGroup, panics::contained_now,
};

/// Shows a part of another instancer's instances: those of a zone, of a version.
///
/// It has no guard and no delay of its own: an instance that the other one holds stays held, and a
/// stale set stays stale. A [`refresh`](Subscription::refresh) is passed on to the other one, whose
/// [`stats`](Subscription::stats) these are. When the filter panics, or after
/// [`close`](Self::close), the last set is stale and [`as_of`](Snapshot::as_of) of new snapshots
/// stays at that time. For a merge of several instancers use a
/// [`Publisher`](crate::Publisher).
///
/// A filter reads the registry's view only: it cannot detect that a listed instance does not
/// answer. "Zone `a`, and all instances when it has none" is an outage when all of zone `a` crash,
/// until the registry removes them. For a preference use a balancer which falls back when no
/// endpoint is usable; use a filter for what must never be mixed.
///
/// # Drop
///
/// Its task, and its subscription to the other one, end when it and all of its subscriptions are
/// gone.
///
/// # Examples
///
/// The instances of version 2 only:
///
/// ```
/// use tower_sd::discovery::{FilteredInstancer, Snapshot};
/// use tower_sd::{FixedInstancer, Instance, Instancer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let all = FixedInstancer::new([
///     Instance::new("10.0.0.1", 80).with_tags(["v1"]),
///     Instance::new("10.0.1.1", 80).with_tags(["v2"]),
/// ]);
/// let second = FilteredInstancer::new(&all, |snapshot: &Snapshot| {
///     snapshot.retain(|instance| instance.tags().iter().any(|tag| tag == "v2"))
/// });
/// let snapshot = second.subscribe().snapshot();
/// assert_eq!(snapshot.instances().len(), 1);
/// assert!(snapshot.freshness().is_fresh());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct FilteredInstancer {
    subscription: Subscription,
    tasks: TaskGroup,
}

/// The shown snapshot. Dropped, it leaves the last set, stale.
struct Shown<F> {
    filter: F,
    shown: watch::Sender<Snapshot>,
}

impl FilteredInstancer {
    /// Shows the results of `filter`, which derives each from one of `instancer`'s by
    /// [`Snapshot::retain`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime: it starts a task.
    pub fn new(
        instancer: &(impl Instancer + ?Sized),
        filter: impl Fn(&Snapshot) -> Snapshot + Send + 'static,
    ) -> Self {
        let mut all = instancer.subscribe();
        let mut first = Snapshot::never_synced();
        first.proof = all.snapshot().proof;
        let shown = Shown { filter, shown: watch::Sender::new(first) };
        shown.update(&all.snapshot());
        let tasks = TaskGroup::new();
        let snapshots = shown.shown.subscribe();
        let subscription = all.showing(snapshots).with_owner(Arc::new(tasks.clone()));
        tasks.spawn(|stop| async move {
            loop {
                select! {
                    biased;
                    () = stop.requested() => return,
                    snapshot = all.changed() => match snapshot {
                        Ok(snapshot) => shown.update(&snapshot),
                        Err(_closed) => return,
                    },
                }
            }
        });
        Self { subscription, tasks }
    }

    /// Ends its task, and waits for that.
    ///
    /// Subscriptions keep the last set, stale with a `Closed` error.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the task still ends; only the waiting is lost.
    pub async fn close(&self) {
        self.tasks.close().await;
    }
}

impl Instancer for FilteredInstancer {
    fn subscribe(&self) -> Subscription {
        self.subscription.clone()
    }
}

impl<F: Fn(&Snapshot) -> Snapshot> Shown<F> {
    /// Shows the filtered snapshot. Subscribers wake when their part has changed.
    fn update(&self, all: &Snapshot) {
        match contained_now(|| (self.filter)(all)) {
            Some(next) => self.show(next),
            None => {
                tracing::error!("instance filter panicked; the last set is stale");
                let error = Error::new(ErrorKind::Config, "core", "filter");
                self.fail(error.with_message("the filter panicked"));
            }
        }
    }

    fn show(&self, next: Snapshot) {
        self.shown.send_if_modified(|now| {
            let same_set = now.instances == next.instances && now.held == next.held;
            let same_trouble = now.freshness.nature() == next.freshness.nature();
            let revision = now.revision + u64::from(!same_set);
            *now = Snapshot { revision, ..next };
            !(same_set && same_trouble)
        });
    }
}

impl<F> Shown<F> {
    fn fail(&self, error: Error) {
        self.shown.send_modify(|now| {
            // What proves the other one's set from now on proves nothing of this one.
            now.proof = Arc::new(Mutex::new(now.as_of()));
            now.freshness = now.freshness.after(error);
        });
    }
}

impl<F> Drop for Shown<F> {
    fn drop(&mut self) {
        self.fail(Error::new(ErrorKind::Closed, "core", "filter"));
    }
}

#[cfg(test)]
mod tests;
