//! The connections of a pool, and the requests that wait for one in order.

use std::{collections::VecDeque, sync::Arc};

use http_body::Body;
use tokio::{runtime::Handle, sync::oneshot, time::Instant};
use tower_sd_balance::BoxError;

use super::{
    Connection, Pool, Unused,
    connection::Obtained,
    dials::Dials,
    http1::Exclusive,
    http2::{Carrier, Open},
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
    pub(super) dials: Dials,
}

pub(super) struct Idle<B: Send + 'static> {
    pub(super) until: Instant,
    pub(super) exclusive: Exclusive<B>,
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
            dials: Dials::new(),
        }
    }

    /// The request that has waited longest.
    fn next_waiting(&mut self) -> Option<oneshot::Sender<Obtained<B>>> {
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

    fn push_waiting(&mut self, reply: oneshot::Sender<Obtained<B>>, is_first: bool) {
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
    fn take(&mut self, pool: &Arc<Pool<B>>, old: &mut Vec<Idle<B>>) -> Option<Unused<B>> {
        if self.open.is_empty() && self.idle.is_empty() {
            return None;
        }
        let now = Instant::now();
        if let Some(open) = self.open.iter_mut().find(|open| open.has_room(now)) {
            return Some(open.take(Arc::downgrade(pool)));
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

impl<B: Send + 'static> Pool<B> {
    /// Keeps a connection for the next request; above the bounds it is closed.
    pub(super) fn keep(self: &Arc<Self>, mut exclusive: Exclusive<B>) {
        let now = Instant::now();
        let idle_for = self.settings.http1_idle(exclusive.announced);
        let is_over =
            exclusive.is_retired(now) || idle_for.is_zero() || self.settings.max_idle == 0;
        // A new one has to serve a request first.
        if is_over && exclusive.reused {
            return exclusive.close();
        }
        loop {
            let mut queue = self.queue();
            queue.dials.is_alive = true;
            let Some(waiting) = queue.next_waiting() else {
                let is_full = queue.idle.len() >= self.settings.max_idle;
                if is_over || is_full || Handle::try_current().is_err() {
                    drop(queue);
                    return exclusive.close();
                }
                exclusive.reused = true;
                let until = now + idle_for;
                let until = exclusive.retire_at.map_or(until, |at| at.min(until));
                queue.idle.push(Idle { until, exclusive });
                let start = !std::mem::replace(&mut queue.reaper_runs, true);
                drop(queue);
                if start {
                    self.start_reaper(until);
                }
                return;
            };
            drop(queue);
            let unused = Unused::new(Connection::Http1(exclusive));
            let Err(Ok(unused)) = waiting.send(Ok(unused)) else {
                return;
            };
            let Some(Connection::Http1(returned)) = unused.take() else {
                return;
            };
            exclusive = returned;
        }
    }

    /// Frees a place, for the request that has waited longest.
    pub(super) fn release(self: &Arc<Self>, carrier: &Arc<Carrier>) {
        let mut queue = self.queue();
        let Some(i) = queue.open.iter().position(|open| open.is_carried_by(carrier)) else {
            return;
        };
        queue.dials.is_alive = true;
        let now = Instant::now();
        let is_idle = queue.open[i].release(now);
        let over = (is_idle && queue.open[i].is_over(now)).then(|| queue.open.remove(i));
        let reap = is_idle && over.is_none() && !std::mem::replace(&mut queue.reaper_runs, true);
        let any_waits = queue.any_waits();
        drop(queue);
        drop(over);
        if reap {
            self.start_reaper(now + self.settings.http2_idle());
        }
        if any_waits {
            self.hand_out();
        }
    }

    /// Gives the free places of HTTP/2 to the requests that wait.
    pub(super) fn hand_out(self: &Arc<Self>) {
        loop {
            let mut queue = self.queue();
            if !queue.any_waits() {
                return;
            }
            let now = Instant::now();
            let Some(open) = queue.open.iter_mut().find(|open| open.has_room(now)) else {
                return;
            };
            let stream = open.take(Arc::downgrade(self));
            let waiting = queue.next_waiting();
            // One that gave up meanwhile frees the place again, which takes the lock.
            drop(queue);
            if let Some(waiting) = waiting {
                drop(waiting.send(Ok(stream)));
            }
        }
    }
}

impl<B> Pool<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// A connection, or the promise of one. `is_first`: before the requests that wait already.
    pub(super) fn obtain(
        self: &Arc<Self>,
        is_first: bool,
    ) -> Result<Unused<B>, oneshot::Receiver<Obtained<B>>> {
        let mut old = Vec::new();
        let mut queue = self.queue();
        if (is_first || !queue.any_waits())
            && let Some(unused) = queue.take(self, &mut old)
        {
            drop(queue);
            close_all(old);
            return Ok(unused);
        }
        let (reply, promise) = oneshot::channel();
        queue.push_waiting(reply, is_first);
        drop(queue);
        close_all(old);
        self.dial_more();
        Err(promise)
    }
}

pub(super) fn close_all<B: Send + 'static>(old: Vec<Idle<B>>) {
    for idle in old {
        idle.exclusive.close();
    }
}

const PRUNE: usize = 64;
