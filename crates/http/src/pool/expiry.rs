//! Closing connections that carried nothing for too long.

use std::sync::{Arc, Weak};

use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until},
};

use super::{Pool, queue::close_all};

impl<B: Send + 'static> Pool<B> {
    /// Without a runtime nothing is closed before the next request.
    pub(super) fn start_reaper(self: &Arc<Self>, at: Instant) {
        if Handle::try_current().is_err() {
            self.queue().reaper_runs = false;
            return;
        }
        self.spawn(reap(Arc::downgrade(self), at));
    }

    /// Closes the connections that are too old; with the time of the next.
    fn expire(&self) -> Option<Instant> {
        let now = Instant::now();
        let idle_timeout = self.settings.http2_idle();
        let mut queue = self.queue();
        let old: Vec<_> = queue.idle.extract_if(.., |idle| idle.until <= now).collect();
        let over: Vec<_> = queue
            .open
            .extract_if(.., |open| open.idle_since.is_some_and(|at| at + idle_timeout <= now))
            .collect();
        let next = queue.idle.iter().map(|idle| idle.until).min();
        let next_open = queue.open.iter().filter_map(|open| open.idle_since).min();
        let next = next.into_iter().chain(next_open.map(|at| at + idle_timeout)).min();
        queue.reaper_runs = next.is_some();
        drop(queue);
        drop(over);
        close_all(old);
        next
    }
}

async fn reap<B: Send + 'static>(pool: Weak<Pool<B>>, mut at: Instant) {
    loop {
        sleep_until(at).await;
        match pool.upgrade().and_then(|pool| pool.expire()) {
            Some(next) => at = next,
            None => return,
        }
    }
}
