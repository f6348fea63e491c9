//! The connections of one endpoint: those that are idle, and the way to get one.

mod checkout;
mod connect;
mod connection;
mod http1;
mod http2;
mod io;
mod settings;
mod streams;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicBool, Ordering},
};

use http::uri::{Authority, Scheme};
use http_body::Body;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower_sd::BoxError;
use tower_sd_core::Tasks;

use crate::{HostPolicy, Protocol, tls::Secured};

pub(crate) use checkout::Checkout;
pub(crate) use connection::Connection;
use connection::Dialled;
use http1::Exclusive;
pub(crate) use io::Io;
pub(crate) use settings::Settings;
use streams::Streams;

/// Where the connections lead.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `host:port` for people.
    pub(crate) address: Arc<str>,
    /// `host:port` for the `Host` header.
    pub(crate) authority: Authority,
    pub(crate) host_policy: HostPolicy,
    /// How TLS is spoken, if it is.
    pub(crate) secured: Option<Secured>,
}

pub(crate) struct Pool<B: Send + 'static> {
    target: Arc<Target>,
    settings: Settings,
    tasks: Tasks,
    /// A place for each HTTP/1.1 connection that carries a request, or will.
    places: Arc<Semaphore>,
    idle: Mutex<Idle<B>>,
    streams: Mutex<Streams<B>>,
    /// What the server chose when it was asked.
    chose_http1: AtomicBool,
    gone: CancellationToken,
    _gone_on_drop: DropGuard,
}

struct Idle<B: Send + 'static> {
    /// Oldest first; the youngest is used first, so that a burst's surplus grows old and is closed.
    connections: Vec<(Instant, Exclusive<B>)>,
    reaper_runs: bool,
}

impl Target {
    pub(crate) fn scheme(&self) -> Scheme {
        if self.secured.is_some() { Scheme::HTTPS } else { Scheme::HTTP }
    }
}

impl<B: Send + 'static> Pool<B> {
    pub(crate) fn new(target: Target, settings: Settings, tasks: Tasks) -> Arc<Self> {
        let gone = CancellationToken::new();
        Arc::new(Self {
            target: Arc::new(target),
            places: Arc::new(Semaphore::new(settings.max_http1_connections)),
            settings,
            tasks,
            idle: Mutex::new(Idle { connections: Vec::new(), reaper_runs: false }),
            streams: Mutex::new(Streams::new()),
            chose_http1: AtomicBool::new(false),
            gone: gone.clone(),
            _gone_on_drop: gone.drop_guard(),
        })
    }

    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// What the next request will be sent by; `Auto` when the server has to be asked.
    fn protocol(&self) -> Protocol {
        match (self.settings.protocol, &self.target.secured) {
            (Protocol::Auto, None) => Protocol::Http1,
            (Protocol::Auto, Some(_)) if self.chose_http1.load(Ordering::Relaxed) => {
                Protocol::Http1
            }
            (protocol, _) => protocol,
        }
    }

    fn chose_http1(&self) {
        self.chose_http1.store(true, Ordering::Relaxed);
    }

    /// The server may have been replaced by one that chooses otherwise.
    fn negotiate_again(&self) {
        self.chose_http1.store(false, Ordering::Relaxed);
    }

    /// The youngest idle connection that is not known to be closed.
    fn idle(&self) -> Option<Exclusive<B>> {
        loop {
            let (_, connection) = self.lock().connections.pop()?;
            if !connection.sender.is_closed() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next request; above the bound it is closed. Then its place is free.
    fn keep(self: &Arc<Self>, mut connection: Exclusive<B>) {
        let _place = connection.place.take();
        let now = Instant::now();
        let mut idle = self.lock();
        if idle.connections.len() >= self.settings.max_idle {
            drop(idle);
            drop(connection);
            return;
        }
        idle.connections.push((now, connection));
        if !std::mem::replace(&mut idle.reaper_runs, true) {
            drop(idle);
            self.start_reaper(now, Self::expire);
        }
    }

    fn start_reaper(self: &Arc<Self>, now: Instant, expire: Expire<B>) {
        let (pool, gone) = (Arc::downgrade(self), self.gone.clone());
        let at = now + self.settings.idle_timeout;
        self.tasks.spawn(|stop| async move {
            tokio::select! {
                biased;
                () = stop.requested() => {}
                () = gone.cancelled() => {}
                () = reap(pool, at, expire) => {}
            }
        });
    }

    /// Closes what has been idle for too long, and says when to look again.
    fn expire(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut idle = self.lock();
        let n_old = idle
            .connections
            .partition_point(|(since, _)| *since + self.settings.idle_timeout <= now);
        let old: Vec<_> = idle.connections.drain(..n_old).collect();
        let next = idle.connections.first().map(|(since, _)| *since);
        idle.reaper_runs = next.is_some();
        drop(idle);
        drop(old);
        next.map(|since| since + self.settings.idle_timeout)
    }

    fn lock(&self) -> MutexGuard<'_, Idle<B>> {
        // Nothing inside can be left half-done by a panic.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Pool<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn dial(self: &Arc<Self>, place: OwnedSemaphorePermit) -> oneshot::Receiver<Dialled<B>> {
        let (reply, dialled) = oneshot::channel();
        let (home, gone) = (Arc::downgrade(self), self.gone.clone());
        self.tasks.spawn(|stop| async move {
            tokio::select! {
                biased;
                () = stop.requested() => {}
                () = http1::dial_and_drive(home, gone, place, reply) => {}
            }
        });
        dialled
    }
}

/// Closes what is old, and says when to look again.
type Expire<B> = fn(&Pool<B>) -> Option<Instant>;

async fn reap<B: Send + 'static>(pool: Weak<Pool<B>>, mut at: Instant, expire: Expire<B>) {
    loop {
        sleep_until(at).await;
        match pool.upgrade().and_then(|pool| expire(&pool)) {
            Some(next) => at = next,
            None => return,
        }
    }
}
