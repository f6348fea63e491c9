//! More applications than are read one by one.
//!
//! One task reads the whole registry for all followers of a client.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    select,
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};
use tower_sd_core::{Attached, Backoff, Error, ErrorKind, Hub, Result, TaskGroup};

use super::{
    registry::{Entries, Fetch, Registry},
    wire::Wire,
};
use crate::{BACKEND, error::FOLLOW};

/// The followers of one client, and the task that reads for them when they are many.
#[derive(Debug)]
pub(super) struct Sharing {
    wire: Arc<Wire>,
    n_followers: AtomicUsize,
    hub: Hub<Arc<Board>>,
}

/// The results of the task.
#[derive(Debug, Default)]
struct Board {
    latest: watch::Sender<Latest>,
    /// A follower requests a read before its time.
    wanted: Notify,
}

#[derive(Clone, Debug, Default)]
struct Latest {
    n_reads: u64,
    registry: Arc<Registry>,
    error: Option<Error>,
}

/// One follower's place.
#[derive(Debug)]
pub(crate) struct Ticket {
    sharing: Arc<Sharing>,
    attached: Option<Attached<Arc<Board>>>,
    /// The last read that this follower has seen.
    n_seen: u64,
    /// That read has failed: the next failure is no news.
    has_failed: bool,
}

impl Sharing {
    pub(super) fn new(wire: &Arc<Wire>) -> Arc<Self> {
        let reader = Arc::clone(wire);
        let hub = Hub::new(BACKEND, TaskGroup::new(), move || {
            let board = Arc::new(Board::default());
            (Arc::clone(&board), run(Arc::clone(&reader), board))
        });
        Arc::new(Self { wire: Arc::clone(wire), n_followers: AtomicUsize::new(0), hub })
    }

    pub(super) fn join(self: &Arc<Self>) -> Ticket {
        self.n_followers.fetch_add(1, Relaxed);
        Ticket { sharing: Arc::clone(self), attached: None, n_seen: 0, has_failed: false }
    }
}

impl Ticket {
    /// Whether there are too many followers for reads of their own.
    pub(crate) fn is_shared(&self) -> bool {
        self.sharing.n_followers.load(Relaxed) > self.sharing.wire.config.max_single_reads
    }

    /// Leaves the shared task.
    pub(crate) fn leave(&mut self) {
        self.attached = None;
    }

    /// Waits for the next read of the registry, and returns the entries of an application. After an
    /// error it waits for the next read that succeeds.
    ///
    /// # Errors
    ///
    /// That of the read, or of the task's end. The pause that a server requests is the task's.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self, app: &str) -> Result<Entries> {
        let Self { sharing, attached, n_seen, has_failed } = self;
        if attached.as_ref().is_none_or(Attached::has_ended) {
            (*attached, *n_seen, *has_failed) = (Some(sharing.hub.attach()), 0, false);
        }
        let place = match attached {
            Some(place) => place.clone(),
            None => sharing.hub.attach(),
        };
        let mut latest = place.handle().latest.subscribe();
        let read = select! {
            biased;
            read = latest.wait_for(|latest| {
                latest.n_reads > *n_seen && !(*has_failed && latest.error.is_some())
            }) => read.map(|it| it.clone()),
            error = place.ended() => return Err(error),
        };
        let Latest { n_reads, registry, error } = read.map_err(|cause| {
            Error::new(ErrorKind::Unavailable, BACKEND, FOLLOW).with_source(cause)
        })?;
        (*n_seen, *has_failed) = (n_reads, error.is_some());
        match error {
            Some(error) => Err(error.with_retry_after(Duration::ZERO)),
            None => Ok(registry.entries(app)),
        }
    }

    /// As [`next`](Self::next), soon: a read is requested unless one is under way. The task repeats
    /// a read that has failed by itself.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next); that of the latest read immediately.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn soon(&mut self, app: &str) -> Result<Entries> {
        if let Some(place) = &self.attached {
            let latest = place.handle().latest.borrow();
            if latest.error.is_none() {
                self.n_seen = latest.n_reads;
                place.handle().wanted.notify_one();
            } else {
                (self.n_seen, self.has_failed) = (0, false);
            }
        }
        self.next(app).await
    }

    /// The result of the latest read, or that of the next one if there was none.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn latest(&mut self, app: &str) -> Result<Entries> {
        (self.n_seen, self.has_failed) = (0, false);
        self.next(app).await
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.sharing.n_followers.fetch_sub(1, Relaxed);
    }
}

/// Reads, at the pace of the configured query; after a failure with backoff.
async fn run(wire: Arc<Wire>, board: Arc<Board>) {
    let interval = wire.config.query.poll_interval;
    let (mut fetch, mut backoff) =
        (Fetch::new(), Backoff::new(MIN_INTERVAL, interval.min(MAX_PAUSE)));
    loop {
        let (registry, error) = match fetch.read(&wire.servers).await {
            Ok(registry) => (Some(registry), None),
            Err(error) => (None, Some(error)),
        };
        let (now, has_failed) = (Instant::now(), error.is_some());
        let pause = match &error {
            Some(error) => backoff.next_pause_after(error),
            None => {
                backoff.succeeded();
                interval.mul_f64(0.9 + 0.2 * fastrand::f64())
            }
        };
        board.latest.send_modify(|latest| {
            latest.n_reads += 1;
            latest.registry = registry.unwrap_or_else(|| Arc::clone(&latest.registry));
            latest.error = error;
        });
        let earliest = now + MIN_INTERVAL.min(interval);
        sleep_until(earliest).await;
        select! {
            () = sleep_until(now + pause) => {}
            // A pause after a failure may be one that the server has requested.
            () = board.wanted.notified(), if !has_failed => {}
        }
    }
}

/// Of reads that followers request: a dead instance makes many of them.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// After failures, unless a server requests a longer one.
const MAX_PAUSE: Duration = Duration::from_secs(20);
