//! Who gets a place on which connection of an endpoint that speaks HTTP/2.

use std::{
    collections::VecDeque,
    sync::{Arc, MutexGuard, PoisonError},
};

use http_body::Body;
use tokio::{sync::oneshot, time::Instant};
use tower_sd::BoxError;

use super::{
    Connection, Pool,
    connection::Dialled,
    http1::Exclusive,
    http2::{Carrier, Dial, Open, Opened, Stream, dial_and_drive},
};
use crate::{HttpError, HttpErrorKind, error::SharedCause};

pub(super) struct Streams<B: Send + 'static> {
    /// The first with room is used first, so that a burst's surplus becomes idle and is closed.
    open: Vec<Open<B>>,
    /// First come, first served.
    waiting: VecDeque<oneshot::Sender<Dialled<B>>>,
    dialling: bool,
    reaper_runs: bool,
}

impl<B: Send + 'static> Streams<B> {
    pub(super) fn new() -> Self {
        Self { open: Vec::new(), waiting: VecDeque::new(), dialling: false, reaper_runs: false }
    }
}

impl<B: Send + 'static> Pool<B> {
    fn take_place(self: &Arc<Self>, streams: &mut Streams<B>) -> Option<Stream<B>> {
        let open = streams.open.iter_mut().find(|open| open.has_room())?;
        Some(open.take(Arc::downgrade(self)))
    }

    /// Frees a place, for the one who waits for it longest.
    pub(super) fn release(self: &Arc<Self>, carrier: &Arc<Carrier>) {
        let mut streams = self.streams();
        let Some(open) = streams.open.iter_mut().find(|open| open.is_carried_by(carrier)) else {
            return;
        };
        let now = Instant::now();
        let reap = open.release(now) && !std::mem::replace(&mut streams.reaper_runs, true);
        let anybody_waits = !streams.waiting.is_empty();
        drop(streams);
        if reap {
            self.start_reaper(now, Self::expire_streams);
        }
        if anybody_waits {
            self.hand_out();
        }
    }

    /// Gives those who wait what is free.
    fn hand_out(self: &Arc<Self>) {
        loop {
            let mut streams = self.streams();
            while streams.waiting.front().is_some_and(oneshot::Sender::is_closed) {
                streams.waiting.pop_front();
            }
            if streams.waiting.is_empty() {
                return;
            }
            let Some(stream) = self.take_place(&mut streams) else {
                return;
            };
            let waiting = streams.waiting.pop_front();
            // Whoever gave up meanwhile frees the place again, which takes the lock.
            drop(streams);
            if let Some(waiting) = waiting {
                drop(waiting.send(Ok(Some(Connection::Http2(stream)))));
            }
        }
    }

    /// Closes what has been idle for too long, and says when to look again.
    pub(super) fn expire_streams(&self) -> Option<Instant> {
        let now = Instant::now();
        let timeout = self.settings.idle_timeout;
        let mut streams = self.streams();
        let is_old = |open: &mut Open<B>| open.idle_since.is_some_and(|at| at + timeout <= now);
        let old: Vec<_> = streams.open.extract_if(.., is_old).collect();
        let next = streams.open.iter().filter_map(|open| open.idle_since).min();
        streams.reaper_runs = next.is_some();
        drop(streams);
        drop(old);
        next.map(|since| since + timeout)
    }

    fn streams(&self) -> MutexGuard<'_, Streams<B>> {
        // Nothing inside can be left half-done by a panic.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Pool<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// A place on a connection, or the promise of one.
    pub(super) fn stream(self: &Arc<Self>) -> Result<Stream<B>, oneshot::Receiver<Dialled<B>>> {
        let mut streams = self.streams();
        if let Some(stream) = self.take_place(&mut streams) {
            return Ok(stream);
        }
        let (reply, promise) = oneshot::channel();
        streams.waiting.push_back(reply);
        drop(streams);
        self.serve();
        Err(promise)
    }

    /// A connection is there, or there is none.
    pub(super) fn dialled(self: &Arc<Self>, outcome: Result<Opened<B>, BoxError>) {
        let mut streams = self.streams();
        streams.dialling = false;
        match outcome {
            Ok(Opened::Http2(open)) => {
                streams.open.push(open);
                drop(streams);
                self.serve();
            }
            Ok(Opened::Http1(exclusive)) => {
                let waiting = std::mem::take(&mut streams.waiting);
                drop(streams);
                self.serve_exclusively(exclusive, waiting);
            }
            Err(error) => {
                tracing::debug!(address = %self.target.address, %error, "connect failed");
                streams.open.retain(|open| !open.is_closed());
                if !streams.open.is_empty() {
                    return;
                }
                let waiting = std::mem::take(&mut streams.waiting);
                drop(streams);
                self.refuse(waiting, error);
            }
        }
    }

    /// The server chose HTTP/1.1: each needs a connection of its own.
    fn serve_exclusively(
        self: &Arc<Self>,
        exclusive: Exclusive<B>,
        waiting: VecDeque<oneshot::Sender<Dialled<B>>>,
    ) {
        self.chose_http1();
        self.keep(exclusive);
        for waiting in waiting {
            drop(waiting.send(Ok(None)));
        }
    }

    fn refuse(&self, waiting: VecDeque<oneshot::Sender<Dialled<B>>>, error: BoxError) {
        let cause = SharedCause::new(error);
        for waiting in waiting {
            let address = &self.target.address;
            let error = HttpError::new(HttpErrorKind::Connect, address, cause.clone());
            drop(waiting.send(Err(error)));
        }
    }

    /// Gives those who wait what is free, and sees to it that there will be more.
    pub(super) fn serve(self: &Arc<Self>) {
        self.hand_out();
        let mut streams = self.streams();
        streams.open.retain(|open| !open.is_closed());
        let wanted = !streams.waiting.is_empty() && !streams.dialling;
        if !wanted || streams.open.len() >= self.settings.max_connections {
            return;
        }
        streams.dialling = true;
        drop(streams);
        let (dial, gone) = (Dial::new(Arc::downgrade(self)), self.gone.clone());
        self.tasks.spawn(|stop| async move {
            tokio::select! {
                biased;
                () = stop.requested() => {}
                () = dial_and_drive(dial, gone) => {}
            }
        });
    }
}
