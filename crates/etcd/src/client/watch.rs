//! One watch stream for everything that is watched.

mod change;
mod hub;
mod stream;

use std::sync::{Arc, OnceLock};

use etcd_client::ResponseHeader;
use tokio::sync::mpsc;
use tower_sd_core::{Error, Tasks};

pub(crate) use self::change::Change;
use self::hub::{Command, hub};
use super::link::Links;
use crate::key::Range;

/// Hands out watches; their one stream is served by a task that starts with the first of them.
#[derive(Default)]
pub(super) struct Watches(OnceLock<mpsc::UnboundedSender<Command>>);

/// What happens to a range of keys.
///
/// # Drop
///
/// Ends the watch.
pub(crate) struct Watch {
    id: i64,
    changes: mpsc::Receiver<Vec<Change>>,
    ended: Arc<OnceLock<Ended>>,
    commands: mpsc::UnboundedSender<Command>,
}

/// Why a watch is over. It never goes on by itself: whoever needs it lists again, and watches from there.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// Not an error: the position was lost, or the stream ended.
    Resync(&'static str),
    /// The cluster refuses, or cannot be reached.
    Failed(Error),
}

/// What a list has seen: the store's revision, and whose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) cluster: u64,
    pub(crate) revision: i64,
}

impl Watches {
    pub(super) fn watch(
        &self,
        range: Range,
        position: Position,
        links: &Arc<Links>,
        tasks: &Tasks,
    ) -> Watch {
        let commands = self.0.get_or_init(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            let links = Arc::clone(links);
            tasks.spawn(|stop| hub(links, receiver, stop));
            sender
        });
        let (sender, changes) = mpsc::channel(QUEUE);
        let ended = Arc::new(OnceLock::new());
        let id = hub::next_id();
        let command = Command::Watch(hub::Start {
            id,
            range,
            position,
            changes: sender,
            ended: Arc::clone(&ended),
        });
        // When the task is gone, so is the sender that it was given: the watch says that it is over.
        commands.send(command).ok();
        Watch { id, changes, ended, commands: commands.clone() }
    }
}

impl Watch {
    /// Waits for what happens next.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Vec<Change>, Ended> {
        match self.changes.recv().await {
            Some(changes) => Ok(changes),
            None => Err(self.ended()),
        }
    }

    /// What has happened already, if anything.
    pub(crate) fn try_next(&mut self) -> Option<Vec<Change>> {
        self.changes.try_recv().ok()
    }

    fn ended(&self) -> Ended {
        let ended = self.ended.get().cloned();
        ended.unwrap_or(Ended::Resync("fell behind"))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Without a task there is nothing to end.
        self.commands.send(Command::Cancel(self.id)).ok();
    }
}

impl Position {
    pub(crate) fn of(header: Option<&ResponseHeader>) -> Self {
        Self {
            cluster: header.map_or(0, ResponseHeader::cluster_id),
            revision: header.map_or(0, ResponseHeader::revision),
        }
    }
}

/// How many responses may wait for a reader that is busy; beyond that it lists again, which costs less than a queue.
const QUEUE: usize = 1024;

#[cfg(test)]
mod tests;
