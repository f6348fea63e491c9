use std::{future::Future, time::Duration};

use tokio::{task::futures::TaskLocalFuture, task_local, time::Instant};

/// The deadline of the request that a server is working on.
///
/// A server's layer enters it around every poll of its handler, as `DeadlineLayer` of
/// tower-sd-http does. A [`Retry`](crate::Retry) that is called there has no more time than is
/// left, and carries the rest to its own server.
///
/// It is a value of the thread, and does not cross a spawned task: pass it on by
/// [`scope`](Self::scope). A request has it that is begun there, wherever its future is polled.
///
/// ```
/// use std::time::Duration;
/// use tokio::time::Instant;
/// use tower_sd::retry::CallerDeadline;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let at = Instant::now() + Duration::from_millis(300);
/// let work = async { CallerDeadline::current().map(|deadline| deadline.at()) };
/// assert_eq!(CallerDeadline::new(at).scope(work).await, Some(at));
/// assert_eq!(CallerDeadline::current(), None);
/// # }
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CallerDeadline {
    at: Instant,
    to_head: bool,
}

impl CallerDeadline {
    /// The response must have ended at `at`, its body included.
    pub fn new(at: Instant) -> Self {
        Self { at, to_head: false }
    }

    /// The head of the response must have come at `at`; its body may go on.
    ///
    /// A gRPC call that a client begins there ends at `at` with its stream all the same.
    pub fn to_head(at: Instant) -> Self {
        Self { at, to_head: true }
    }

    /// The moment.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Whether the moment has come.
    ///
    /// It has from 2 ms before: a server gets the rest in whole milliseconds, and its answer that
    /// the time is over arrives early.
    pub fn is_over(&self) -> bool {
        self.at.saturating_duration_since(Instant::now()) <= ROUNDING
    }

    /// Whether the body of the response may go on after the moment.
    pub fn is_to_head(&self) -> bool {
        self.to_head
    }

    /// That of the request which the caller is serving.
    #[inline]
    pub fn current() -> Option<Self> {
        CURRENT.try_get().ok()
    }

    /// Runs `f`, the poll of a future or a call, inside this deadline.
    pub fn enter<T>(self, f: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, f)
    }

    /// Polls `future` inside this deadline.
    pub fn scope<F: Future>(self, future: F) -> TaskLocalFuture<Self, F> {
        CURRENT.scope(self, future)
    }
}

const ROUNDING: Duration = Duration::from_millis(2);

task_local! {
    static CURRENT: CallerDeadline;
}
