//! One watch stream for everything that is watched.

mod change;
mod multiplexer;
mod stream;
mod table;

use std::sync::{Arc, OnceLock};

use etcd_client::ResponseHeader;
use tokio::sync::{Notify, mpsc};
use tower_sd_core::{Attached, Error, Hub, TaskGroup};

pub(crate) use self::change::Change;
use self::{multiplexer::multiplex, table::Watching};
use super::members::Members;
use crate::{BACKEND, key::Range};

/// Creates watches, whose stream one task serves for all of them.
pub(super) struct Watches(Hub<Multiplexed>);

/// The way to the task.
struct Multiplexed {
    starts: mpsc::Sender<Watching>,
    /// Notified when a watch is dropped.
    dropped: Arc<Notify>,
}

/// The changes of a range of keys. It outlives streams and members: only a lost position ends it.
///
/// # Drop
///
/// Ends the watch.
pub(crate) struct Watch {
    updates: mpsc::Receiver<Update>,
    /// Received, and left for later.
    unread: Option<Update>,
    ended: Arc<OnceLock<Ended>>,
    task: Attached<Multiplexed>,
}

/// News of a watch.
#[derive(Debug)]
pub(crate) enum Update {
    /// Keys have changed.
    Changes(Vec<Change>),
    /// Everything that has happened so far was reported: sent from time to time, and after trouble.
    Alive,
    /// Changes may be missing until the next update. The position is kept.
    Trouble(Error),
}

/// Why a watch has ended; a new list gives the position of another one.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// The position was lost. Not an error.
    Resync(&'static str),
    /// The cluster refuses the watch.
    Failed(Error),
}

/// The revision of a store, and the cluster that it belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    /// 0 if unknown: etcd's gRPC proxy answers so.
    pub(crate) cluster: u64,
    pub(crate) revision: i64,
}

impl Watches {
    pub(super) fn new(members: &Arc<Members>, tasks: &TaskGroup) -> Self {
        let members = Arc::clone(members);
        Self(Hub::new(BACKEND, tasks.clone(), move || {
            let (starts, receiver) = mpsc::channel(STARTS);
            let dropped = Arc::new(Notify::new());
            let task = multiplex(Arc::clone(&members), receiver, Arc::clone(&dropped));
            (Multiplexed { starts, dropped }, task)
        }))
    }

    /// # Cancel safety
    ///
    /// Cancel safe: a watch that was not returned is ended by the task.
    pub(super) async fn watch(&self, range: Range, position: Position) -> Watch {
        let (sender, updates) = mpsc::channel(QUEUE);
        let ended = Arc::new(OnceLock::new());
        let start = Watching { range, position, updates: sender, ended: Arc::clone(&ended) };
        let mut task = self.0.attach();
        // The task may end just then. Where the next one ends, too, the client is closed.
        if let Err(unsent) = task.handle().starts.send(start).await {
            task = self.0.attach();
            task.handle().starts.send(unsent.0).await.ok();
        }
        Watch { updates, unread: None, ended, task }
    }
}

impl Watch {
    /// Waits for the next update.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Update, Ended> {
        if let Some(update) = self.unread.take() {
            return Ok(update);
        }
        match self.updates.recv().await {
            Some(update) => Ok(update),
            None => Err(self.ended().await),
        }
    }

    /// The next changes, if some have been reported already. Anything else is left to `next`.
    pub(crate) fn try_changes(&mut self) -> Option<Vec<Change>> {
        match self.updates.try_recv().ok()? {
            Update::Changes(changes) => Some(changes),
            other => {
                self.unread = Some(other);
                None
            }
        }
    }

    async fn ended(&self) -> Ended {
        match self.ended.get() {
            Some(ended) => ended.clone(),
            None => Ended::Failed(self.task.ended().await),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.updates.close();
        self.task.handle().dropped.notify_one();
    }
}

impl Position {
    const UNKNOWN: Self = Self { cluster: 0, revision: 0 };

    pub(crate) fn of(header: Option<&ResponseHeader>) -> Self {
        Self {
            cluster: header.map_or(0, ResponseHeader::cluster_id),
            revision: header.map_or(0, ResponseHeader::revision),
        }
    }

    /// Whether both can be of one cluster.
    pub(crate) fn is_of_cluster(self, other: Self) -> bool {
        self.cluster == 0 || other.cluster == 0 || self.cluster == other.cluster
    }

    /// Why a watch from here cannot go on in a store at `now`.
    ///
    /// etcd accepts a start in the future silently: a store that went back would be silent until it
    /// has caught up.
    pub(crate) fn lost_at(self, now: Self) -> Option<&'static str> {
        match () {
            () if !self.is_of_cluster(now) => Some(OTHER_CLUSTER),
            () if now.revision < self.revision => Some(WENT_BACK),
            () => None,
        }
    }
}

const OTHER_CLUSTER: &str = "another cluster";
const WENT_BACK: &str = "the revision went back";
/// How many updates may wait for a busy reader; beyond that it lists again, which costs less than a
/// queue.
const QUEUE: usize = 1024;
/// How many watches may wait for the task; more wait for a place.
const STARTS: usize = 256;

#[cfg(test)]
mod tests;
