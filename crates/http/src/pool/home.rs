//! A pool: what requests and connections share of one endpoint.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{runtime::Handle, sync::oneshot, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower_sd_core::TaskGroup;

use super::{
    Connection, Settings, Target, Unused,
    connection::Obtained,
    http1::{self, Exclusive},
    http2::{self, Carrier},
    queue::{Idle, Queue, close_all},
    upload::Payload,
};

pub(crate) struct Pool<B: Send + 'static> {
    pub(super) target: Arc<Target>,
    pub(super) settings: Settings,
    pub(super) tasks: TaskGroup,
    queue: Mutex<Queue<B>>,
    pub(super) gone: CancellationToken,
    _gone_on_drop: DropGuard,
}

impl<B: Send + 'static> Pool<B> {
    pub(crate) fn new(target: Target, settings: Settings, tasks: TaskGroup) -> Arc<Self> {
        let gone = CancellationToken::new();
        Arc::new(Self {
            target: Arc::new(target),
            settings,
            tasks,
            queue: Mutex::new(Queue::new()),
            gone: gone.clone(),
            _gone_on_drop: gone.drop_guard(),
        })
    }

    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    pub(crate) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Runs `work` until the pool is closed or gone.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let gone = self.gone.clone();
        self.tasks.spawn(|stop| async move {
            tokio::select! {
                biased;
                () = stop.requested() => {}
                () = gone.cancelled() => {}
                () = work => {}
            }
        });
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue<B>> {
        // Nothing inside can be left half-done by a panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
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
            let stream = Connection::Http2(open.take());
            let waiting = queue.next_waiting();
            // One that gave up meanwhile frees the place again, which takes the lock.
            drop(queue);
            if let Some(waiting) = waiting {
                drop(waiting.send(Ok(Unused::new(stream))));
            }
        }
    }
}

impl<B: Send + 'static> http1::Home<B> for Pool<B> {
    fn keep(self: Arc<Self>, mut exclusive: Box<Exclusive<B>>) {
        let now = Instant::now();
        let until = exclusive.expires(now, &self.settings);
        let is_over = until <= now || self.settings.max_idle == 0;
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
}

impl<B: Payload> http2::Home for Pool<B> {
    fn release(self: Arc<Self>, carrier: &Arc<Carrier>) {
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
            // One that takes nothing more counts no longer by the bound. Bodies may be dropped
            // outside a runtime.
            if Handle::try_current().is_ok() {
                self.dial_more();
            }
        }
    }
}

impl<B: Payload> Pool<B> {
    /// A connection, or the promise of one. `is_first`: before the requests that wait already.
    pub(super) fn obtain(
        self: &Arc<Self>,
        is_first: bool,
    ) -> Result<Unused<B>, oneshot::Receiver<Obtained<B>>> {
        let mut old = Vec::new();
        let mut queue = self.queue();
        if (is_first || !queue.any_waits())
            && let Some(unused) = queue.take(&mut old)
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
