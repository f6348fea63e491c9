//! One watch stream for everything that is watched.

mod change;
mod multiplexer;
mod stream;
mod table;
mod update;

use std::sync::{Arc, OnceLock};

use tokio::sync::{Notify, mpsc};
use tower_sd_core::{Attached, Hub, TaskGroup};

pub(crate) use self::{
    change::Change,
    update::{Ended, Position, Update},
};
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

/// How many updates may wait for a busy reader; beyond that it lists again, which costs less than a
/// queue.
const QUEUE: usize = 1024;
/// How many watches may wait for the task; more wait for a place.
const STARTS: usize = 256;

#[cfg(test)]
mod tests;
