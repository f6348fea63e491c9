//! Connections that carry many requests at a time.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use http_body::Body;
use hyper::{client::conn::http2, rt::Executor};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use tower_sd::BoxError;
use tower_sd_core::Tasks;

use super::{
    Io, Pool, Settings, Target,
    connect::{connect, within},
    http1::{self, Exclusive},
};
use crate::Protocol;

/// A place on a connection. Dropped, it is free for another request.
pub(crate) struct Stream<B: Send + 'static> {
    pub(crate) sender: http2::SendRequest<B>,
    pub(crate) reused: bool,
    pub(super) carrier: Arc<Carrier>,
    pub(super) home: Weak<Pool<B>>,
}

/// What the streams of a connection share.
pub(super) struct Carrier {
    target: Arc<Target>,
    /// How many requests at a time the server grants.
    n_granted: AtomicUsize,
    /// A response may outlive the client that asked for it: its connection's tasks then have no other owner.
    _tasks: Tasks,
}

/// An open connection as its pool knows it.
pub(super) struct Open<B> {
    sender: http2::SendRequest<B>,
    carrier: Arc<Carrier>,
    max_streams: usize,
    n_streams: usize,
    used: bool,
    pub(super) idle_since: Option<Instant>,
}

impl<B: Send + 'static> Stream<B> {
    pub(super) fn target(&self) -> &Target {
        &self.carrier.target
    }
}

impl<B: Send + 'static> Drop for Stream<B> {
    fn drop(&mut self) {
        if let Some(pool) = self.home.upgrade() {
            pool.release(&self.carrier);
        }
    }
}

impl<B> Open<B> {
    fn new(sender: http2::SendRequest<B>, carrier: Carrier, max_streams: usize) -> Self {
        Self {
            sender,
            carrier: Arc::new(carrier),
            max_streams,
            n_streams: 0,
            used: false,
            idle_since: Some(Instant::now()),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) fn is_carried_by(&self, carrier: &Arc<Carrier>) -> bool {
        Arc::ptr_eq(&self.carrier, carrier)
    }

    pub(super) fn has_room(&self) -> bool {
        let n_granted = self.carrier.n_granted.load(Ordering::Relaxed);
        self.n_streams < n_granted.min(self.max_streams) && !self.is_closed()
    }

    /// Takes a place; the caller has seen that there is room.
    pub(super) fn take(&mut self, home: Weak<Pool<B>>) -> Stream<B>
    where
        B: Send + 'static,
    {
        self.n_streams += 1;
        self.idle_since = None;
        Stream {
            sender: self.sender.clone(),
            reused: std::mem::replace(&mut self.used, true),
            carrier: Arc::clone(&self.carrier),
            home,
        }
    }

    /// Says whether it now carries nothing.
    pub(super) fn release(&mut self, now: Instant) -> bool {
        self.n_streams -= 1;
        let idle = self.n_streams == 0;
        self.idle_since = idle.then_some(now);
        idle
    }
}

/// Connects, says how it went, and then drives the connection until either side closes it: one that carries many requests,
/// or else, where the server was asked and chose it, one that carries one at a time.
pub(super) async fn dial_and_drive<B>(dial: Dial<B>, gone: CancellationToken)
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let Some(pool) = dial.home.upgrade() else {
        return;
    };
    let (target, settings, tasks) = (Arc::clone(&pool.target), pool.settings, pool.tasks.clone());
    drop(pool);
    let opening = within(settings.connect_timeout, async {
        Ok(match connect(&target, settings.protocol).await? {
            (io, Protocol::Http2) => {
                Begun::Http2(Box::new(begin(io, &settings, &target, tasks).await?))
            }
            (io, Protocol::Auto | Protocol::Http1) => {
                Begun::Http1(Box::new(http1::begin(io, &dial.home, &target, tasks).await?))
            }
        })
    });
    let opened = tokio::select! {
        biased;
        () = gone.cancelled() => return,
        opened = opening => opened,
    };
    match opened {
        Ok(Begun::Http1(begun)) => {
            let (exclusive, driver) = *begun;
            dial.opened(Opened::Http1(exclusive));
            driver.run().await;
        }
        Ok(Begun::Http2(begun)) => {
            let (open, driver) = *begun;
            let carrier = Arc::clone(&open.carrier);
            let _ending = Ending { home: dial.opened(Opened::Http2(open)) };
            drive(driver, &carrier).await;
        }
        Err(error) => dial.failed(error),
    }
}

enum Begun<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    Http1(Box<(Exclusive<B>, http1::Driver<B>)>),
    Http2(Box<(Open<B>, Driver<B>)>),
}

/// What dialling has led to.
pub(super) enum Opened<B: Send + 'static> {
    Http1(Exclusive<B>),
    Http2(Open<B>),
}

/// The handle of the task that connects: its end is the end of waiting for it, however it ends.
pub(super) struct Dial<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    home: Weak<Pool<B>>,
    outcome: Option<Result<Opened<B>, BoxError>>,
}

impl<B> Dial<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    pub(super) fn new(home: Weak<Pool<B>>) -> Self {
        Self { home, outcome: None }
    }

    fn opened(mut self, open: Opened<B>) -> Weak<Pool<B>> {
        self.outcome = Some(Ok(open));
        Weak::clone(&self.home)
    }

    fn failed(mut self, error: BoxError) {
        self.outcome = Some(Err(error));
    }
}

impl<B> Drop for Dial<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn drop(&mut self) {
        if let Some(pool) = self.home.upgrade() {
            let closed = || Err("the endpoint is closed".into());
            pool.dialled(self.outcome.take().unwrap_or_else(closed));
        }
    }
}

/// Tells the pool that a connection has ended: those who wait for a place on it need another.
struct Ending<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    home: Weak<Pool<B>>,
}

impl<B> Drop for Ending<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn drop(&mut self) {
        if let Some(pool) = self.home.upgrade() {
            pool.serve();
        }
    }
}

type Driver<B> = http2::Connection<TokioIo<Io>, B, Spawner>;

async fn drive<B>(mut driver: Driver<B>, carrier: &Carrier)
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
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

/// Waits until the server has spoken: what it grants is then known, and that it speaks HTTP/2 at all.
async fn begin<B>(
    io: Io,
    settings: &Settings,
    target: &Arc<Target>,
    tasks: Tasks,
) -> Result<(Open<B>, Driver<B>), BoxError>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let spawner = Spawner::new(tasks.clone());
    let polled = Arc::clone(&spawner.polled);
    let (sender, mut driver) = http2::Builder::new(spawner)
        .timer(TokioTimer::new())
        .initial_max_send_streams(NOT_SAID)
        .keep_alive_interval(settings.keep_alive_interval)
        .keep_alive_timeout(settings.keep_alive_timeout)
        .handshake(TokioIo::new(io))
        .await?;
    loop {
        let n_granted = driver.current_max_send_streams();
        if n_granted != NOT_SAID {
            let n_granted = AtomicUsize::new(n_granted);
            let carrier = Carrier { target: Arc::clone(target), n_granted, _tasks: tasks };
            return Ok((Open::new(sender, carrier, settings.max_streams), driver));
        }
        tokio::select! {
            ended = &mut driver => {
                ended?;
                return Err("closed before it said that it speaks HTTP/2".into());
            }
            () = polled.notified() => {}
        }
    }
}

/// hyper's own tasks, with an owner: the first reads and writes the socket, and the others end with it.
#[derive(Clone)]
struct Spawner {
    tasks: Tasks,
    polled: Arc<Notify>,
    has_first: Arc<AtomicBool>,
}

impl Spawner {
    fn new(tasks: Tasks) -> Self {
        Self { tasks, polled: Arc::default(), has_first: Arc::default() }
    }
}

impl<F> Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        if self.has_first.swap(true, Ordering::Relaxed) {
            self.tasks.spawn(|_| future);
            return;
        }
        let polled = Arc::clone(&self.polled);
        self.tasks.spawn(|stop| async move {
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

/// What a server grants before it has said anything. One that grants nothing is waited for like one that says nothing.
const NOT_SAID: usize = 0;
