//! Connections that carry many requests at a time.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use hyper::{client::conn::http2, rt::Executor};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::Notify, time::Instant};
use tower_sd_balance::BoxError;
use tower_sd_core::TaskGroup;
use tower_sd_net::Io;

use super::{
    Settings, Target,
    upload::{Outgoing, Payload},
};

/// A place on a connection. Dropped, it is free for another request.
pub(crate) struct Stream<B: Send + 'static> {
    pub(crate) sender: http2::SendRequest<Outgoing<B>>,
    pub(crate) reused: bool,
    pub(super) carrier: Arc<Carrier>,
}

/// The pool of a connection.
pub(super) trait Home: Send + Sync {
    /// Frees a place, for the request that has waited longest.
    fn release(self: Arc<Self>, carrier: &Arc<Carrier>);
}

/// The common part of a connection's streams.
pub(super) struct Carrier {
    pub(super) target: Arc<Target>,
    home: Weak<dyn Home>,
    /// How many requests at a time the server grants.
    n_granted: AtomicUsize,
    /// A response may outlive its client: the connection's tasks then have no other owner.
    _tasks: TaskGroup,
}

/// An open connection as its pool has it.
pub(super) struct Open<B> {
    sender: http2::SendRequest<Outgoing<B>>,
    carrier: Arc<Carrier>,
    max_streams: usize,
    n_streams: usize,
    used: bool,
    retire_at: Option<Instant>,
    pub(super) idle_since: Option<Instant>,
}

impl<B: Send + 'static> Stream<B> {
    pub(super) fn target(&self) -> &Target {
        &self.carrier.target
    }
}

impl<B: Send + 'static> Drop for Stream<B> {
    fn drop(&mut self) {
        if let Some(pool) = self.carrier.home.upgrade() {
            pool.release(&self.carrier);
        }
    }
}

impl<B> Open<B> {
    fn new(sender: http2::SendRequest<Outgoing<B>>, carrier: Carrier, settings: &Settings) -> Self {
        Self {
            sender,
            carrier: Arc::new(carrier),
            max_streams: settings.max_streams,
            n_streams: 0,
            used: false,
            retire_at: settings.retire_at(),
            idle_since: Some(Instant::now()),
        }
    }

    /// Whether it takes no new requests: it is closed, or has reached its age. One that has streams
    /// ends after them, and a new one has to serve a request first.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let is_retired = self.retire_at.is_some_and(|at| at <= now);
        self.sender.is_closed() || (self.used && is_retired)
    }

    pub(super) fn carrier(&self) -> &Arc<Carrier> {
        &self.carrier
    }

    pub(super) fn is_carried_by(&self, carrier: &Arc<Carrier>) -> bool {
        Arc::ptr_eq(&self.carrier, carrier)
    }

    pub(super) fn has_room(&self, now: Instant) -> bool {
        let n_granted = self.carrier.n_granted.load(Ordering::Relaxed);
        self.n_streams < n_granted.min(self.max_streams) && !self.is_over(now)
    }

    /// Takes a place; the caller has checked that there is room.
    pub(super) fn take(&mut self) -> Stream<B>
    where
        B: Send + 'static,
    {
        self.n_streams += 1;
        self.idle_since = None;
        Stream {
            sender: self.sender.clone(),
            reused: std::mem::replace(&mut self.used, true),
            carrier: Arc::clone(&self.carrier),
        }
    }

    /// Frees a place; whether it now carries nothing.
    pub(super) fn release(&mut self, now: Instant) -> bool {
        self.n_streams -= 1;
        let idle = self.n_streams == 0;
        self.idle_since = idle.then_some(now);
        idle
    }
}

/// The other half of an [`Open`]: reads and writes the socket.
pub(super) type Driver<B> = http2::Connection<TokioIo<Io>, Outgoing<B>, Spawner>;

/// Runs until either side closes.
pub(super) async fn drive<B: Payload>(mut driver: Driver<B>, carrier: &Carrier) {
    let ended = poll_fn(|cx| {
        let ended = Pin::new(&mut driver).poll(cx);
        // The server may change its mind; it is polled for each request, which is often enough.
        carrier.n_granted.store(driver.current_max_send_streams(), Ordering::Relaxed);
        ended
    });
    if let Err(error) = ended.await {
        tracing::debug!(address = %carrier.target.address, %error, "connection ended with an error");
    }
}

/// Waits for the server's settings: its grant is then known, and that it serves HTTP/2 at all.
pub(super) async fn begin<B: Payload>(
    io: Io,
    settings: &Settings,
    home: Weak<dyn Home>,
    (target, tasks): (&Arc<Target>, TaskGroup),
) -> Result<(Open<B>, Driver<B>), BoxError> {
    let spawner = Spawner::new(tasks.clone());
    let polled = Arc::clone(&spawner.polled);
    let (sender, mut driver) = http2::Builder::new(spawner)
        .timer(TokioTimer::new())
        .initial_max_send_streams(NOT_SAID)
        .max_header_list_size(settings.max_header_size.saturating_mul(HEADER_SLACK))
        .initial_connection_window_size(WIDE)
        // After 1024 frames that crossed the end of their streams it would close the connection.
        .max_local_error_reset_streams(None)
        .keep_alive_interval(settings.keep_alive_interval())
        .keep_alive_timeout(settings.keep_alive_timeout)
        .handshake(TokioIo::new(io))
        .await?;
    loop {
        let n_granted = driver.current_max_send_streams();
        if n_granted != NOT_SAID {
            let n_granted = AtomicUsize::new(n_granted);
            let target = Arc::clone(target);
            let carrier = Carrier { target, home, n_granted, _tasks: tasks };
            return Ok((Open::new(sender, carrier, settings), driver));
        }
        tokio::select! {
            ended = &mut driver => {
                ended?;
                return Err("closed before its HTTP/2 settings".into());
            }
            () = polled.notified() => {}
        }
    }
}

/// hyper's own tasks, with an owner: the first reads and writes the socket, and the others end with
/// it.
#[derive(Clone)]
pub(super) struct Spawner {
    tasks: TaskGroup,
    polled: Arc<Notify>,
    has_first: Arc<AtomicBool>,
}

impl Spawner {
    fn new(tasks: TaskGroup) -> Self {
        Self { tasks, polled: Arc::default(), has_first: Arc::default() }
    }
}

impl<F> Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        if self.has_first.swap(true, Ordering::Relaxed) {
            // One for each request, of the size of the first: tokio copies what it starts often.
            let future = Box::pin(future);
            self.tasks.spawn(|_| future);
            return;
        }
        let polled = Arc::clone(&self.polled);
        self.tasks.spawn(|stop| async move {
            let (stop, _guard) = stop.child();
            let mut future = pin!(future);
            let observed = poll_fn(|cx| {
                let ended = future.as_mut().poll(cx);
                polled.notify_one();
                ended
            });
            tokio::select! {
                biased;
                () = stop.requested() => {}
                () = observed => {}
            }
        });
    }
}

/// The grant of a server before its settings. One that grants nothing is waited for like one that
/// is silent.
const NOT_SAID: usize = 0;

/// Bytes of a connection's responses that wait to be read. Those of one are bounded by its own
/// window; this one would let a few readers who pause stop all other requests.
const WIDE: u32 = 1 << 30;

/// Above its own limit h2 resets a response, and cuts trailers without an error; up to this
/// multiple of the setting, the error can name the size and keep the status.
const HEADER_SLACK: u32 = 4;
