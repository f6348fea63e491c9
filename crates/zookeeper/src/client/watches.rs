//! Watches, and the users that they report to.
//!
//! ZooKeeper's watches are one-shot: each read of a user sets its watch again. After a reconnect
//! to the same session they are set once more, and the server reports what was missed.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{
    error::ClientError,
    wire::{self, Event, EventKind},
};

/// The watches of one session.
#[derive(Debug, Default)]
pub(super) struct Watches(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    trouble: Option<ClientError>,
    watching: HashMap<String, Vec<Arc<Watching>>>,
    armed: Armed,
}

/// What the server has been requested to watch.
#[derive(Debug, Default)]
struct Armed {
    data: BTreeSet<String>,
    absent: BTreeSet<String>,
    children: BTreeSet<String>,
}

/// The three kinds of watches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Arm {
    Data,
    /// Of a node that does not exist.
    Absent,
    Children,
}

/// Paths for `set_watches`, one batch.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) data: Vec<String>,
    pub(super) absent: Vec<String>,
    pub(super) children: Vec<String>,
    n_bytes: usize,
}

/// The news of a node and of its children.
///
/// # Drop
///
/// Ends the watch.
#[derive(Debug)]
pub(crate) struct Watch {
    path: String,
    watching: Arc<Watching>,
    watches: Arc<Watches>,
}

#[derive(Debug, Default)]
struct Watching {
    news: Mutex<News>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct News {
    changes: Changes,
    trouble: Option<ClientError>,
    is_trouble_reported: bool,
    has_ended: bool,
}

/// What may have changed, and has to be read again.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Changes {
    /// The node itself, or which children it has.
    pub(crate) node: bool,
    /// The data of these children.
    pub(crate) children: BTreeSet<String>,
}

/// News of a watch.
#[derive(Debug)]
pub(crate) enum Update {
    Changes(Changes),
    /// After trouble: nothing was missed.
    Alive,
    /// Changes are reported later: there is no connection.
    Trouble(ClientError),
    /// The session has ended, and the watch with it.
    Ended,
}

impl Watches {
    pub(super) fn watch(self: &Arc<Self>, path: &str) -> Watch {
        let mut table = self.table();
        let watching = Arc::<Watching>::default();
        watching.news().trouble.clone_from(&table.trouble);
        table.watching.entry(path.to_owned()).or_default().push(Arc::clone(&watching));
        Watch { path: path.to_owned(), watching, watches: Arc::clone(self) }
    }

    /// The server has accepted a watch.
    pub(super) fn armed(&self, arm: Arm, path: String) {
        let mut table = self.table();
        if table.is_watched(&path) {
            table.armed.paths(arm).insert(path);
        }
    }

    pub(super) fn report(&self, event: Event) {
        let mut table = self.table();
        let Event { kind, path } = event;
        match kind {
            EventKind::Created => {
                table.armed.absent.remove(&path);
                table.armed.data.remove(&path);
            }
            EventKind::Deleted => {
                table.armed.data.remove(&path);
                table.armed.children.remove(&path);
            }
            EventKind::DataChanged => {
                table.armed.data.remove(&path);
            }
            EventKind::ChildrenChanged => {
                table.armed.children.remove(&path);
            }
            EventKind::Other => return,
        }
        for watching in table.watching.get(&path).into_iter().flatten() {
            watching.change(|news| news.changes.node = true);
        }
        let Some((parent, name)) = path.rsplit_once('/') else { return };
        for watching in table.watching.get(parent).into_iter().flatten() {
            watching.change(|news| {
                news.changes.children.insert(name.to_owned());
            });
        }
    }

    /// There is no connection.
    pub(super) fn trouble(&self, error: &ClientError) {
        let mut table = self.table();
        table.trouble = Some(error.clone());
        table.all(|news| news.trouble = Some(error.clone()));
    }

    /// There is a connection to the same session, and all watches are set again.
    pub(super) fn restored(&self) {
        let mut table = self.table();
        table.trouble = None;
        table.all(|news| news.trouble = None);
    }

    /// The session has ended, and all watches with it.
    pub(super) fn ended(&self) {
        let mut table = self.table();
        table.all(|news| news.has_ended = true);
        table.watching.clear();
        table.armed = Armed::default();
    }

    /// The watches to set again, in batches that the server accepts.
    pub(super) fn to_set(&self) -> Vec<Batch> {
        let table = self.table();
        let mut batches = Vec::new();
        let mut batch = Batch::default();
        let Armed { data, absent, children } = &table.armed;
        for (arm, paths) in [(Arm::Data, data), (Arm::Absent, absent), (Arm::Children, children)] {
            for path in paths {
                let is_full = batch.n_bytes + size_of(path) > MAX_BATCH;
                if is_full && batch.n_bytes > 0 {
                    batches.push(mem::take(&mut batch));
                }
                batch.push(arm, path);
            }
        }
        if batch.n_bytes > 0 {
            batches.push(batch);
        }
        batches
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn is_watched(&self, path: &str) -> bool {
        let parent = path.rsplit_once('/').map(|(parent, _name)| parent);
        self.watching.contains_key(path) || parent.is_some_and(|it| self.watching.contains_key(it))
    }

    fn all(&self, change: impl Fn(&mut News)) {
        for watching in self.watching.values().flatten() {
            watching.change(&change);
        }
    }

    fn remove(&mut self, path: &str, ended: &Arc<Watching>) {
        if let Some(list) = self.watching.get_mut(path) {
            list.retain(|it| !Arc::ptr_eq(it, ended));
            if list.is_empty() {
                self.watching.remove(path);
                let mut armed = mem::take(&mut self.armed);
                armed.remove(path, |path| self.is_watched(path));
                self.armed = armed;
            }
        }
    }
}

impl Armed {
    fn paths(&mut self, arm: Arm) -> &mut BTreeSet<String> {
        match arm {
            Arm::Data => &mut self.data,
            Arm::Absent => &mut self.absent,
            Arm::Children => &mut self.children,
        }
    }

    /// Removes a node and its children, except what is kept.
    fn remove(&mut self, path: &str, keep: impl Fn(&str) -> bool) {
        let below = format!("{path}/");
        for paths in [&mut self.data, &mut self.absent, &mut self.children] {
            let children = paths.range(below.clone()..).take_while(|it| it.starts_with(&below));
            let all = children.chain(paths.get(path)).filter(|path| !keep(path));
            for path in all.cloned().collect::<Vec<_>>() {
                paths.remove(&path);
            }
        }
    }
}

impl Batch {
    fn push(&mut self, arm: Arm, path: &str) {
        let paths = match arm {
            Arm::Data => &mut self.data,
            Arm::Absent => &mut self.absent,
            Arm::Children => &mut self.children,
        };
        paths.push(wire::node(path).to_owned());
        self.n_bytes += size_of(path);
    }
}

/// The bytes of a path in a request, its length included.
fn size_of(path: &str) -> usize {
    path.len() + 4
}

impl Watch {
    /// Whether there is no connection.
    pub(crate) fn is_in_trouble(&self) -> bool {
        let news = self.watching.news();
        news.trouble.is_some() || news.is_trouble_reported
    }

    /// Waits for the next news.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn next(&self) -> Update {
        loop {
            if let Some(update) = self.watching.news().take() {
                return update;
            }
            self.watching.notify.notified().await;
        }
    }
}

impl Watching {
    fn change(&self, change: impl FnOnce(&mut News)) {
        change(&mut self.news());
        self.notify.notify_one();
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl News {
    fn take(&mut self) -> Option<Update> {
        if self.has_ended {
            return Some(Update::Ended);
        }
        match &self.trouble {
            Some(_) if self.is_trouble_reported => return None,
            Some(error) => {
                self.is_trouble_reported = true;
                return Some(Update::Trouble(error.clone()));
            }
            None => {}
        }
        let was_trouble = mem::take(&mut self.is_trouble_reported);
        match mem::take(&mut self.changes) {
            changes if !changes.is_empty() => Some(Update::Changes(changes)),
            _ => was_trouble.then_some(Update::Alive),
        }
    }
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        !self.node && self.children.is_empty()
    }

    /// Adds those of `other`.
    pub(crate) fn merge(&mut self, other: Self) {
        self.node |= other.node;
        self.children.extend(other.children);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watches.table().remove(&self.path, &self.watching);
    }
}

/// As Java's client: far below the largest request that servers accept, 1 MiB by default.
const MAX_BATCH: usize = 128 << 10;

#[cfg(test)]
mod tests;
