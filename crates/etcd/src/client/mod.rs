//! What everything of one client shares: a connection, and a watch stream.

mod link;
mod watch;

use std::{fmt, future::Future, sync::Arc};

use etcd_client::GetOptions;
use tower_sd_core::{Result, Tasks};

pub(crate) use self::watch::{Change, Ended, Position, Watch};
use self::{link::Links, watch::Watches};
use crate::{EtcdConfig, error::Failure, key::Range};

/// A connection to an etcd cluster, shared by all registrars and instancers that are made from it.
///
/// `Clone` is one `Arc`. Hundreds of registrations and thousands of followed services use the same few TCP connections
/// and one watch stream.
///
/// # Drop
///
/// With the last clone, registrar, instancer and registration gone, its connections close.
#[derive(Clone)]
pub struct EtcdClient(Arc<Inner>);

struct Inner {
    links: Arc<Links>,
    watches: Watches,
    tasks: Tasks,
}

impl EtcdClient {
    /// A client that connects when it is first used.
    ///
    /// # Errors
    ///
    /// `Config`: the settings cannot work.
    pub fn new(config: EtcdConfig) -> Result<Self> {
        Ok(Self(Arc::new(Inner {
            links: Arc::new(Links::new(config.validated()?)),
            watches: Watches::default(),
            tasks: Tasks::new(),
        })))
    }

    /// Connects, authenticates, and reads one key with the agreement of the cluster's majority.
    ///
    /// # Errors
    ///
    /// What kept it from doing so; `Denied` when the user may not read below the prefix.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn check(&self) -> Result<()> {
        let key = format!("{}/", self.config().prefix);
        let read = self.call(|mut client| {
            let key = key.clone();
            async move {
                let options = GetOptions::new().with_keys_only();
                client.get(key, Some(options)).await
            }
        });
        match read.await {
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.into_error("check")),
        }
    }

    pub(crate) fn config(&self) -> &EtcdConfig {
        self.0.links.config()
    }

    /// Makes a call that can be repeated, on one member after the other, every one with its bound.
    pub(crate) async fn call<T, F>(
        &self,
        request: impl Fn(etcd_client::Client) -> F + Send + Sync,
    ) -> Result<T, Failure>
    where
        T: Send,
        F: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        self.0.links.call(request).await
    }

    /// Watches keys for what happens after `position`; what happened at it is told again.
    pub(crate) fn watch(&self, range: Range, position: Position) -> Watch {
        let Inner { links, watches, tasks } = &*self.0;
        watches.watch(range, position, links, tasks)
    }
}

impl fmt::Debug for EtcdClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EtcdClient").field(self.config()).finish()
    }
}

/// The largest answer that is read. tonic's own limit of 4 MB is below what a page of large values takes, and below what a
/// watch is told at once that has a thousand revisions to catch up with.
pub(crate) const MAX_MESSAGE: usize = 64 << 20;
