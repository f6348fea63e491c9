//! Connecting, by a bounded number of tasks of the pool.
//!
//! They run whether or not a request waits for the outcome.

use std::{
    future::Future,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{sleep, timeout};
use tower_sd_balance::BoxError;
use tower_sd_core::Shutdown;

use super::{Pool, connect::connect, http1, http2, limit::Place, upload::Payload};
use crate::HttpVersion;

/// Connects, reports the outcome, and then drives the connection until either side closes it.
///
/// One task does both, so that a connection whose caller gave up waiting is kept for the next one.
async fn dial_and_drive<B: Payload>(mut dial: Dial<B>, stop: Shutdown) {
    // Of its own, since it is polled at each wake-up of the connection.
    let (closed, close) = stop.child();
    let Some(pool) = dial.home.upgrade() else {
        return;
    };
    let (target, settings, tasks) = (Arc::clone(&pool.target), pool.settings, pool.tasks.clone());
    let gone = pool.gone.clone();
    drop(pool);
    let opening = within(settings.connect_timeout, async {
        let connected = connect(&target, settings.protocol).await?;
        let (home, shared) = (Weak::<Pool<B>>::clone(&dial.home), (&target, tasks));
        Ok(match connected {
            (io, HttpVersion::Http2) => {
                Opened::Http2(Box::new(http2::begin(io, &settings, home, shared).await?))
            }
            (io, HttpVersion::Auto | HttpVersion::Http1) => {
                let opened = http1::begin(io, &settings, home, shared, close).await?;
                Opened::Http1(Box::new(opened))
            }
        })
    });
    let opened = tokio::select! {
        biased;
        () = stop.requested() => return,
        () = gone.cancelled() => return,
        opened = opening => opened,
    };
    match opened {
        Ok(Opened::Http1(opened)) => {
            let (exclusive, driver) = *opened;
            let _ending = dial.report(|pool| pool.opened_http1(exclusive), Pool::ended_http1);
            http1::drive(driver, &target, &closed).await;
        }
        Ok(Opened::Http2(opened)) => {
            let (open, driver) = *opened;
            let carrier = Arc::clone(open.carrier());
            let _ending = dial.report(|pool| pool.opened_http2(open), Pool::ended_http2);
            http2::drive(driver, &carrier).await;
        }
        Err(error) => {
            tracing::debug!(address = %target.address, %error, "connect failed");
            if dial.failed(error) {
                tokio::select! {
                    biased;
                    () = stop.requested() => {}
                    () = gone.cancelled() => {}
                    () = sleep(PAUSE) => dial.paused(),
                }
            }
        }
    }
}

impl<B: Payload> Pool<B> {
    /// Connects in a task, which reports to the queue, however it ends.
    pub(super) fn start_dial(self: &Arc<Self>, place: Option<Place>) {
        let dial = Dial { home: Arc::downgrade(self), place, is_reported: false };
        self.tasks.spawn(|stop| dial_and_drive(dial, stop));
    }
}

enum Opened<B: Payload> {
    Http1(Box<(Box<http1::Exclusive<B>>, http1::Driver<B>)>),
    Http2(Box<(http2::Open<B>, http2::Driver<B>)>),
}

/// The handle of a task that connects: its end is the end of waiting for it, however it ends.
struct Dial<B: Payload> {
    home: Weak<Pool<B>>,
    /// Free before its end is reported, which may open the next one.
    place: Option<Place>,
    is_reported: bool,
}

impl<B: Payload> Dial<B> {
    /// Reports a connection, and with the drop of the returned value its end.
    fn report(mut self, opened: impl FnOnce(&Arc<Pool<B>>), ended: fn(&Arc<Pool<B>>)) -> Ending<B> {
        self.is_reported = true;
        if let Some(pool) = self.home.upgrade() {
            opened(&pool);
        }
        Ending { home: Weak::clone(&self.home), place: self.place.take(), ended }
    }

    /// Whether this dial is to be repeated after a pause, of which [`paused`](Self::paused) is the
    /// end.
    fn failed(&mut self, error: BoxError) -> bool {
        let again = self.home.upgrade().is_some_and(|pool| pool.dial_failed(error));
        self.is_reported = !again;
        again
    }

    fn paused(mut self) {
        self.is_reported = true;
        self.place = None;
        if let Some(pool) = self.home.upgrade() {
            pool.dial_again();
        }
    }
}

impl<B: Payload> Drop for Dial<B> {
    fn drop(&mut self) {
        if !self.is_reported
            && let Some(pool) = self.home.upgrade()
        {
            pool.dial_stopped();
        }
    }
}

/// Reports the end of a connection: the requests that wait for it need another.
struct Ending<B: Payload> {
    home: Weak<Pool<B>>,
    place: Option<Place>,
    ended: fn(&Arc<Pool<B>>),
}

impl<B: Payload> Drop for Ending<B> {
    fn drop(&mut self) {
        self.place = None;
        if let Some(pool) = self.home.upgrade() {
            (self.ended)(&pool);
        }
    }
}

/// Bounds connecting, with all that belongs to it.
async fn within<T>(
    bound: Duration,
    opening: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, BoxError> {
    match timeout(bound, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(format!("not connected within {bound:?}").into()),
    }
}

/// Between a failed dial and the next, while other connections to the instance live; and between
/// one that a limit refused and the next.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
