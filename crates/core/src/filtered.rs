use std::{mem::discriminant, sync::Arc};

use tokio::{select, sync::watch};

use crate::{Instancer, Snapshot, Subscription, Tasks};

/// Shows a part of what another instancer shows: the instances of one zone, of one version.
///
/// It adds no guard, no delay and no opinion: what the other one holds stays held, and what it calls stale stays stale.
/// Asking for a [`refresh`](Subscription::refresh) asks the other one, whose [`stats`](Subscription::stats) these are.
/// For a merge of several instancers use a [`Publisher`](crate::Publisher).
///
/// # Drop
///
/// Its task, and its subscription to the other one, end when it and all of its subscriptions are gone.
///
/// # Examples
///
/// The instances of zone `a`, and all of them when there are none:
///
/// ```
/// use tower_sd_core::{FilteredInstancer, FixedInstancer, Instance, Instancer, Snapshot};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let all = FixedInstancer::new([
///     Instance::new("10.0.0.1", 80).with_zone("a"),
///     Instance::new("10.0.1.1", 80).with_zone("b"),
/// ]);
/// let near = FilteredInstancer::new(&all, |snapshot: &Snapshot| {
///     let near = snapshot.retain(|instance| instance.zone() == Some("a"));
///     if near.known().next().is_some() { near } else { snapshot.clone() }
/// });
/// let snapshot = near.subscribe().snapshot();
/// assert_eq!(snapshot.instances().len(), 1);
/// assert!(snapshot.freshness().is_fresh());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct FilteredInstancer {
    subscription: Subscription,
    tasks: Tasks,
}

impl FilteredInstancer {
    /// Shows what `filter` makes of each of `instancer`'s snapshots, with [`Snapshot::retain`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime: it starts a task.
    #[must_use]
    pub fn new(
        instancer: &(impl Instancer + ?Sized),
        filter: impl Fn(&Snapshot) -> Snapshot + Send + 'static,
    ) -> Self {
        let mut all = instancer.subscribe();
        let (shown, snapshots) = watch::channel(filter(&all.snapshot()));
        let tasks = Tasks::new();
        let subscription = all.showing(snapshots).keeping_alive(Arc::new(tasks.clone()));
        tasks.spawn(|stop| async move {
            loop {
                select! {
                    biased;
                    () = stop.requested() => return,
                    snapshot = all.changed() => match snapshot {
                        Ok(snapshot) => show(&shown, filter(&snapshot)),
                        Err(_closed) => return,
                    },
                }
            }
        });
        Self { subscription, tasks }
    }

    /// Ends its task, and waits for that; subscriptions keep the last set.
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

/// Wakes subscribers when what they see has changed: what happens in another zone is not theirs to know.
fn show(shown: &watch::Sender<Snapshot>, next: Snapshot) {
    shown.send_if_modified(|now| {
        let same_set = now.instances == next.instances && now.held == next.held;
        let same_trouble = discriminant(&now.freshness) == discriminant(&next.freshness)
            && now.freshness.error().is_some() == next.freshness.error().is_some();
        let revision = now.revision + u64::from(!same_set);
        *now = Snapshot { revision, ..next };
        !(same_set && same_trouble)
    });
}

#[cfg(test)]
mod tests;
