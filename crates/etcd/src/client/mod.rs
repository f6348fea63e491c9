//! What everything of one client shares: a connection, and a watch stream.

mod connection;
mod credentials;
mod members;
mod recorded;
mod watch;

use std::{fmt, future::Future, sync::Arc};

use etcd_client::GetOptions;
use tower_sd_core::{Result, TaskGroup};

pub(crate) use self::{
    connection::MAX_MESSAGE,
    watch::{Change, Ended, Position, Update, Watch},
};
use self::{members::Members, watch::Watches};
use crate::{EtcdConfig, error::Failure, key::Range};

/// A connection to an etcd cluster, shared by all registrars and instancers that are made from it.
///
/// `Clone` is one `Arc`. Hundreds of registrations and thousands of followed services use the same
/// few TCP connections and one watch stream.
///
/// # Drop
///
/// With the last clone, registrar, instancer and registration gone, its connections close.
#[derive(Clone)]
pub(crate) struct EtcdClient(Arc<Inner>);

struct Inner {
    members: Arc<Members>,
    watches: Watches,
}

impl EtcdClient {
    /// A client that connects when it is first used.
    ///
    /// # Errors
    ///
    /// `Config`: the settings cannot work.
    pub(crate) fn new(config: EtcdConfig) -> Result<Self> {
        let members = Arc::new(Members::new(config.validated()?)?);
        let watches = Watches::new(&members, &TaskGroup::new());
        Ok(Self(Arc::new(Inner { members, watches })))
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
    pub(crate) async fn check(&self) -> Result<()> {
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
        self.0.members.config()
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
        self.0.members.call(request).await
    }

    /// Watches keys for changes after `position`; those at `position` are reported, too.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a watch that was not returned is none.
    pub(crate) async fn watch(&self, range: Range, position: Position) -> Watch {
        self.0.watches.watch(range, position).await
    }
}

impl fmt::Debug for EtcdClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EtcdClient").field(self.config()).finish()
    }
}
