//! Connects for the requests that wait, and the meaning of their outcomes to those.

use std::{collections::VecDeque, sync::Arc};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use tower_sd_balance::BoxError;

use super::{
    Pool, Settings,
    connection::Obtained,
    dial_task::PAUSE,
    http1::{Exclusive, Home},
    http2::Open,
    queue::Queue,
    upload::Payload,
};
use crate::{HttpError, HttpErrorKind, HttpVersion, error::SharedCause};

impl<B: Send + 'static> Queue<B> {
    fn n_dials_wanted(&self, settings: &Settings, protocol: HttpVersion) -> usize {
        let (n_waiting, n_running) = (self.waiting.len(), self.dials.n_running);
        if n_waiting == 0 {
            return 0;
        }
        let room = match protocol {
            HttpVersion::Http1 => {
                let room = settings.max_http1_connections.saturating_sub(self.n_http1 + n_running);
                let window = self.dials.window.min(n_waiting);
                return window.saturating_sub(n_running).min(room);
            }
            HttpVersion::Auto | HttpVersion::Http2 => settings.max_http2_connections,
        };
        // Each brings places for many.
        usize::from(n_running == 0 && self.open.len() < room)
    }
}

impl<B: Send + 'static> Pool<B> {
    /// Ends the waiting of all requests.
    fn refuse(&self, waiting: VecDeque<oneshot::Sender<Obtained<B>>>, error: BoxError) {
        let cause = SharedCause::new(error);
        for waiting in waiting {
            let address = &self.target.address;
            let error = HttpError::new(HttpErrorKind::Connect, address, cause.clone());
            drop(waiting.send(Err(error)));
        }
    }

    /// The expected protocol of the next connection; `Auto` when the server has not chosen yet.
    fn expected(&self, queue: &Queue<B>) -> HttpVersion {
        match (self.settings.protocol, &self.target.tls) {
            (HttpVersion::Auto, None) => HttpVersion::Http1,
            (HttpVersion::Auto, Some(_)) => queue.dials.chosen.unwrap_or_default(),
            (protocol, _) => protocol,
        }
    }
}

impl<B: Payload> Pool<B> {
    /// Connects for the requests that wait, within the bounds.
    pub(super) fn dial_more(self: &Arc<Self>) {
        let mut queue = self.queue();
        let now = Instant::now();
        let over: Vec<_> = queue.open.extract_if(.., |open| open.is_over(now)).collect();
        queue.any_waits();
        let protocol = self.expected(&queue);
        let n = queue.n_dials_wanted(&self.settings, protocol);
        let has_none = queue.n_http1 + queue.open.len() + queue.dials.n_running == 0;
        let places = self.target.places(n, has_none);
        queue.dials.n_running += places.len();
        let is_due = queue.dials.limited_until.is_none_or(|at| at <= now);
        let again = places.len() < n && is_due;
        if again {
            queue.dials.limited_until = Some(now + PAUSE);
        }
        drop(queue);
        drop(over);
        if again {
            self.dial_later();
        }
        for place in places {
            self.start_dial(place);
        }
    }

    /// Nothing reports that another pool has freed a place.
    fn dial_later(self: &Arc<Self>) {
        let pool = Arc::downgrade(self);
        self.spawn(async move {
            sleep(PAUSE).await;
            if let Some(pool) = pool.upgrade() {
                pool.dial_more();
            }
        });
    }

    pub(super) fn opened_http1(self: &Arc<Self>, exclusive: Box<Exclusive<B>>) {
        let mut queue = self.queue();
        queue.n_http1 += 1;
        queue.dials.succeeded(HttpVersion::Http1);
        drop(queue);
        Arc::clone(self).keep(exclusive);
        self.dial_more();
    }

    pub(super) fn opened_http2(self: &Arc<Self>, open: Open<B>) {
        let mut queue = self.queue();
        queue.open.push(open);
        queue.dials.succeeded(HttpVersion::Http2);
        let start = !std::mem::replace(&mut queue.reaper_runs, true);
        drop(queue);
        if start {
            self.start_reaper(Instant::now() + self.settings.http2_idle());
        }
        self.hand_out();
        self.dial_more();
    }

    pub(super) fn ended_http1(self: &Arc<Self>) {
        self.queue().n_http1 -= 1;
        self.dial_more();
    }

    pub(super) fn ended_http2(self: &Arc<Self>) {
        self.dial_more();
    }

    /// Ends the waiting of all requests, unless other connections to the instance live: then it is
    /// to be dialled again.
    pub(super) fn dial_failed(self: &Arc<Self>, error: BoxError) -> bool {
        let mut queue = self.queue();
        queue.dials.window = 1;
        queue.dials.chosen = None;
        let now = Instant::now();
        let over: Vec<_> = queue.open.extract_if(.., |open| open.is_over(now)).collect();
        let is_connected = queue.n_http1 > 0 || !queue.open.is_empty();
        let was_alive = std::mem::replace(&mut queue.dials.is_alive, false);
        let again = is_connected && was_alive && queue.any_waits();
        if again {
            drop(queue);
            drop(over);
            return true;
        }
        queue.dials.n_running -= 1;
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        drop(over);
        self.refuse(waiting, error);
        false
    }

    pub(super) fn dial_again(self: &Arc<Self>) {
        self.queue().dials.n_running -= 1;
        self.dial_more();
    }

    /// The pool is closing, or connecting has panicked.
    pub(super) fn dial_stopped(self: &Arc<Self>) {
        let mut queue = self.queue();
        queue.dials.n_running -= 1;
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        self.refuse(waiting, "the endpoint is closed".into());
    }
}
