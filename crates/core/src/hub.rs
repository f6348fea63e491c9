use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::select;
use tokio_util::sync::CancellationToken;

use crate::{Error, ErrorKind, Shutdown, StopOnDrop, TaskGroup, panics::contained};

/// One shared task for many users.
///
/// Followers of one client share a connection, a watch stream, a poll. The task starts with its
/// first user and ends with its last one. When it ends earlier (it returned, it panicked, its
/// runtime was shut down), all users observe that by [`Attached::ended`]. The next
/// [`attach`](Self::attach) starts another one, on the runtime of the caller.
///
/// ```
/// use tokio::sync::watch;
/// use tower_sd::backend::{Hub, TaskGroup};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let hub = Hub::new("example", TaskGroup::new(), || {
///     let (sender, receiver) = watch::channel(0);
///     (receiver, async move { drop(sender.send(7)) })
/// });
/// let attached = hub.attach();
/// let error = attached.ended().await;
/// assert_eq!((*attached.handle().borrow(), error.backend()), (7, "example"));
/// # }
/// ```
pub struct Hub<H> {
    backend: &'static str,
    tasks: TaskGroup,
    start: Box<dyn Fn() -> (H, BoxFuture<'static, ()>) + Send + Sync>,
    running: Mutex<Weak<Run<H>>>,
}

/// A place of one user at a [`Hub`].
///
/// # Drop
///
/// The last one ends the task.
pub struct Attached<H>(Arc<Run<H>>);

struct Run<H> {
    backend: &'static str,
    handle: H,
    stop: Shutdown,
    /// Fires when the task has ended, however it did.
    ended: CancellationToken,
    _end_with_last_user: StopOnDrop,
}

impl<H: Send + Sync + 'static> Hub<H> {
    /// Creates a hub. Nothing runs before the first [`attach`](Self::attach).
    ///
    /// `start` makes the handle that all users share (a channel's sender, a `watch` receiver) and
    /// the task behind it; it must not block. The task ends with `tasks`, at the latest; closing
    /// those waits for it.
    pub fn new<F>(
        backend: &'static str,
        tasks: TaskGroup,
        start: impl Fn() -> (H, F) + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let start = move || {
            let (handle, task) = start();
            (handle, task.boxed())
        };
        Self { backend, tasks, start: Box::new(start), running: Mutex::default() }
    }

    /// Takes a place, and starts the task unless it is running.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, when it has to start the task.
    pub fn attach(&self) -> Attached<H> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = running.upgrade().filter(|run| !run.ended.is_cancelled()) {
            return Attached(run);
        }
        let (handle, task) = (self.start)();
        let (backend, ended, stop) =
            (self.backend, CancellationToken::new(), self.tasks.shutdown());
        let end = ended.clone().drop_guard();
        let (unused, _end_with_last_user) = stop.child();
        self.tasks.spawn(|_stop| async move {
            // Dropped with the task: at its end, its panic, the shutdown of its runtime.
            let _end = end;
            select! {
                biased;
                () = unused.requested() => {}
                done = contained(|| task) => if done.is_none() {
                    tracing::error!(backend, "shared task panicked; the next user restarts it");
                },
            }
        });
        let run = Arc::new(Run { backend, handle, stop, ended, _end_with_last_user });
        *running = Arc::downgrade(&run);
        Attached(run)
    }
}

impl<H: Send + Sync> Attached<H> {
    /// The handle to the running task.
    pub fn handle(&self) -> &H {
        &self.0.handle
    }

    /// Waits until the task has ended, and returns an error for all its users.
    ///
    /// `Closed` when its [`TaskGroup`] was closed, otherwise `Unavailable`: attach again, with
    /// backoff.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn ended(&self) -> Error {
        let Run { backend, stop, ended, .. } = &*self.0;
        ended.cancelled().await;
        let kind = if stop.is_requested() { ErrorKind::Closed } else { ErrorKind::Unavailable };
        Error::new(kind, backend, "follow").with_message("the shared task has ended")
    }

    /// Whether the task has ended.
    pub fn has_ended(&self) -> bool {
        self.0.ended.is_cancelled()
    }
}

impl<H> Clone for Attached<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H> fmt::Debug for Hub<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl<H> fmt::Debug for Attached<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = self.0.ended.is_cancelled();
        f.debug_struct("Attached").field("ended", &ended).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
