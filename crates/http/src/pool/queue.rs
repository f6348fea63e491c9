//! The connections of a pool, and the requests that wait for one in order.

use std::collections::VecDeque;

use tokio::{sync::oneshot, time::Instant};

use super::{
    Connection, Unused, connection::Obtained, dial_window::DialWindow, http1::Exclusive,
    http2::Open,
};

pub(super) struct Queue<B: Send + 'static> {
    /// Of HTTP/1.1. The youngest is last and is used first, so that a burst's surplus grows old and
    /// is closed.
    pub(super) idle: Vec<Idle<B>>,
    /// Of HTTP/2. The first with room is used first, for the same reason.
    pub(super) open: Vec<Open<B>>,
    pub(super) reaper_runs: bool,
    pub(super) waiting: VecDeque<oneshot::Sender<Obtained<B>>>,
    /// How many may wait before those that gave up are removed.
    prune_at: usize,
    /// Connections of HTTP/1.1, idle or not.
    pub(super) n_http1: usize,
    pub(super) dials: DialWindow,
}

pub(super) struct Idle<B: Send + 'static> {
    pub(super) until: Instant,
    pub(super) exclusive: Box<Exclusive<B>>,
}

impl<B: Send + 'static> Queue<B> {
    pub(super) fn new() -> Self {
        Self {
            idle: Vec::new(),
            open: Vec::new(),
            reaper_runs: false,
            waiting: VecDeque::new(),
            prune_at: PRUNE,
            n_http1: 0,
            dials: DialWindow::new(),
        }
    }

    /// The request that has waited longest.
    pub(super) fn next_waiting(&mut self) -> Option<oneshot::Sender<Obtained<B>>> {
        while let Some(waiting) = self.waiting.pop_front() {
            if !waiting.is_closed() {
                return Some(waiting);
            }
        }
        None
    }

    pub(super) fn any_waits(&mut self) -> bool {
        while self.waiting.front().is_some_and(oneshot::Sender::is_closed) {
            self.waiting.pop_front();
        }
        !self.waiting.is_empty()
    }

    pub(super) fn push_waiting(&mut self, reply: oneshot::Sender<Obtained<B>>, is_first: bool) {
        if self.waiting.len() >= self.prune_at {
            self.waiting.retain(|waiting| !waiting.is_closed());
            self.prune_at = PRUNE.max(2 * self.waiting.len());
        }
        if self.waiting.is_empty() {
            self.dials.begin_burst();
        }
        match is_first {
            true => self.waiting.push_front(reply),
            false => self.waiting.push_back(reply),
        }
    }

    /// A place that is free, and what was found closed or too old on the way to it.
    pub(super) fn take(&mut self, old: &mut Vec<Idle<B>>) -> Option<Unused<B>> {
        if self.open.is_empty() && self.idle.is_empty() {
            return None;
        }
        let now = Instant::now();
        if let Some(open) = self.open.iter_mut().find(|open| open.has_room(now)) {
            let stream = open.take();
            return Some(Unused::new(Connection::Http2(stream)));
        }
        while let Some(idle) = self.idle.pop() {
            if idle.until > now && !idle.exclusive.sender.is_closed() {
                return Some(Unused::new(Connection::Http1(idle.exclusive)));
            }
            old.push(idle);
        }
        None
    }
}

pub(super) fn close_all<B: Send + 'static>(old: Vec<Idle<B>>) {
    for idle in old {
        idle.exclusive.close();
    }
}

const PRUNE: usize = 64;
