//! The connections of one endpoint: those that are idle, and the way to get one.

mod checkout;
mod connect;
mod connection;
mod dial;
mod dials;
mod expiry;
mod http1;
mod http2;
mod queue;
mod settings;
mod upload;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::uri::{Authority, Scheme};
use http_body::Body;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower_sd_balance::{BoxError, Observer};
use tower_sd_core::TaskGroup;
use tower_sd_net::{Dialer, Target as Peer, TlsClient};

use crate::HostPolicy;

pub(crate) use checkout::Checkout;
pub(crate) use connection::{Connection, Unused};
use dial::dial_and_drive;
use queue::Queue;
pub(crate) use settings::{Settings, bounded};
pub(crate) use upload::{Outgoing, Upload};

/// Where the connections lead.
pub(crate) struct Target {
    pub(crate) peer: Peer,
    /// `host:port` for people.
    pub(crate) address: Arc<str>,
    /// `host:port` for the `Host` header.
    pub(crate) authority: Authority,
    pub(crate) host_policy: HostPolicy,
    pub(crate) tls: Option<TlsClient>,
    pub(crate) dialer: Dialer,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

pub(crate) struct Pool<B: Send + 'static> {
    target: Arc<Target>,
    settings: Settings,
    tasks: TaskGroup,
    queue: Mutex<Queue<B>>,
    gone: CancellationToken,
    _gone_on_drop: DropGuard,
}

impl Target {
    pub(crate) fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("address", &self.address)
            .field("host_policy", &self.host_policy)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
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

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    fn queue(&self) -> MutexGuard<'_, Queue<B>> {
        // Nothing inside can be left half-done by a panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Pool<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// The task reports to the queue, however it ends.
    fn start_dial(self: &Arc<Self>) {
        let home = Arc::downgrade(self);
        self.tasks.spawn(|stop| dial_and_drive(home, stop));
    }
}
