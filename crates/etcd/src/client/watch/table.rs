use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, OnceLock},
};

use tokio::sync::mpsc;

use super::update::{Ended, Position, Update};
use crate::key::Range;

/// A watch, from its start on.
pub(super) struct Watching {
    pub(super) range: Range,
    /// Everything up to here was reported.
    pub(super) position: Position,
    pub(super) updates: mpsc::Sender<Update>,
    pub(super) ended: Arc<OnceLock<Ended>>,
}

/// The watches of one client.
#[derive(Default)]
pub(super) struct Table {
    watches: HashMap<i64, Watching>,
    /// Those that the present stream has not been sent.
    unsent: VecDeque<i64>,
    last_id: i64,
}

impl Table {
    pub(super) fn add(&mut self, watch: Watching) {
        // From 1 on: zero would let the server choose.
        self.last_id += 1;
        self.watches.insert(self.last_id, watch);
        self.unsent.push_back(self.last_id);
    }

    /// The next watch that the stream has not been sent; it counts as sent from now on.
    pub(super) fn next_unsent(&mut self) -> Option<(i64, &Watching)> {
        let id = self.unsent.pop_front()?;
        self.watches.get(&id).map(|watch| (id, watch))
    }

    /// The stream is gone: all are to be sent again.
    pub(super) fn all_unsent(&mut self) {
        self.unsent = self.watches.keys().copied().collect();
    }

    pub(super) fn all_sent(&self) -> bool {
        self.unsent.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    pub(super) fn get(&self, id: i64) -> Option<&Watching> {
        self.watches.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: i64) -> Option<&mut Watching> {
        self.watches.get_mut(&id)
    }

    /// Any one of them.
    pub(super) fn first(&self) -> Option<&Watching> {
        self.watches.values().next()
    }

    /// Removes those whose reader has gone, and returns their numbers.
    pub(super) fn take_dropped(&mut self) -> Vec<i64> {
        let dropped = self.watches.extract_if(|_, watch| watch.updates.is_closed());
        let dropped: Vec<_> = dropped.map(|(id, _)| id).collect();
        self.unsent.retain(|id| !dropped.contains(id));
        dropped
    }

    pub(super) fn remove(&mut self, id: i64) -> Option<Watching> {
        let watch = self.watches.remove(&id)?;
        self.unsent.retain(|it| *it != id);
        Some(watch)
    }

    /// Ends a watch. Its reader reads earlier updates first.
    pub(super) fn end(&mut self, id: i64, ended: Ended) {
        if let Some(watch) = self.remove(id) {
            watch.ended.set(ended).ok();
        }
    }

    pub(super) fn end_all(&mut self, ended: &Ended) {
        self.unsent.clear();
        for (_, watch) in self.watches.drain() {
            watch.ended.set(ended.clone()).ok();
        }
    }

    /// Moves the positions of these watches up to `revision`.
    pub(super) fn advance(&mut self, revision: i64, which: impl Fn(i64) -> bool) {
        for (_, watch) in self.watches.iter_mut().filter(|(id, _)| which(**id)) {
            watch.position.revision = watch.position.revision.max(revision);
        }
    }

    pub(super) fn broadcast(&self, update: impl Fn() -> Update) {
        for watch in self.watches.values() {
            // A reader with a thousand unread updates learns of it by those.
            let _full = watch.updates.try_send(update());
        }
    }
}
