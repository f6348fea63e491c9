use std::{future::Future, sync::Arc};

use tokio_util::{
    sync::{CancellationToken, DropGuard, WaitForCancellationFuture},
    task::TaskTracker,
};

/// Owns background tasks, and stops them when its last clone is dropped.
///
/// It can wait for them. Every task of the project has one as its owner. A task gets a [`Shutdown`]
/// and ends when it fires.
#[derive(Clone, Debug, Default)]
pub struct TaskGroup(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tracker: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

/// Notifies a task that its owner is gone or closing.
#[derive(Clone, Debug)]
pub struct Shutdown(CancellationToken);

impl TaskGroup {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task; `task` is given the [`Shutdown`] it has to obey.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn spawn<F>(&self, task: impl FnOnce(Shutdown) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.tracker.spawn(task(self.shutdown()));
    }

    /// Returns the request that all tasks of this group get.
    pub fn shutdown(&self) -> Shutdown {
        Shutdown(self.0.stop.clone())
    }

    /// Requests the tasks to stop, and waits until they have.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the tasks still stop; only the waiting is lost.
    pub async fn close(&self) {
        self.0.stop.cancel();
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }
}

impl Default for Inner {
    fn default() -> Self {
        let stop = CancellationToken::new();
        Self { tracker: TaskTracker::new(), stop: stop.clone(), _stop_on_drop: stop.drop_guard() }
    }
}

/// Stops a [`child`](Shutdown::child) when it is dropped.
#[derive(Debug)]
pub struct StopOnDrop(#[expect(dead_code, reason = "its drop is its use")] DropGuard);

impl Shutdown {
    /// Creates a stop that fires with this one, or earlier by its guard.
    ///
    /// A task that polls its stop at each wake-up should poll a child: the state of a child is
    /// shared with no other task.
    pub fn child(&self) -> (Self, StopOnDrop) {
        let child = self.0.child_token();
        (Self(child.clone()), StopOnDrop(child.drop_guard()))
    }

    /// Waits until the owner is gone or closing.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub fn requested(&self) -> WaitForCancellationFuture<'_> {
        self.0.cancelled()
    }

    /// Whether the owner is gone or closing.
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }
}
