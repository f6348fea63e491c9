use std::sync::Arc;

use crate::{Instance, Instancer, Publisher, Source, Subscription, TaskGroup, follow};

/// An [`Instancer`] over any [`Source`] of instances.
#[derive(Clone, Debug)]
pub struct Follower {
    subscription: Subscription,
    tasks: TaskGroup,
}

impl Follower {
    /// Starts to follow `source`, with the settings of the publisher.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime: it starts the loop's task.
    pub fn new(source: impl Source<Item = Instance>, publisher: Publisher) -> Self {
        let tasks = TaskGroup::new();
        let subscription = publisher.subscribe().with_owner(Arc::new(tasks.clone()));
        let Publisher { backend, config, nudge, .. } = &publisher;
        let (backend, config, nudge) = (*backend, config.follow.clone(), Arc::clone(nudge));
        tasks.spawn(|stop| follow(backend, source, publisher, config, nudge, stop));
        Self { subscription, tasks }
    }

    /// Ends the loop and its I/O, and waits for that.
    ///
    /// Subscriptions keep the last set, stale with a `Closed` error.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the loop still ends; only the waiting is lost.
    pub async fn close(&self) {
        self.tasks.close().await;
    }
}

impl Instancer for Follower {
    fn subscribe(&self) -> Subscription {
        self.subscription.clone()
    }
}
