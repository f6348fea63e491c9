use std::{fmt, sync::Arc, time::Duration};

use tower_sd_core::{Result, Secret};
use tower_sd_net::{Dialer, Target, TlsClient};

/// Settings of a client.
#[derive(Clone)]
pub(crate) struct Settings {
    /// The members of the ensemble, in the order of their use.
    pub(crate) servers: Vec<Server>,
    pub(crate) dialer: Dialer,
    pub(crate) tls: Option<TlsClient>,
    pub(crate) credentials: Option<Credentials>,
    /// That is requested; the servers have limits.
    pub(crate) session_timeout: Duration,
    /// Bounds connecting to one server, the handshake included.
    pub(crate) connect_timeout: Duration,
    /// Bounds a request, the wait for a connection included.
    pub(crate) request_timeout: Duration,
    pub(crate) max_reply: usize,
    pub(crate) max_request: usize,
}

/// A member of the ensemble.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) name: Arc<str>,
    pub(crate) target: Target,
}

impl Settings {
    /// `user:password`, as they are now.
    pub(super) fn credentials(&self) -> Result<Option<Secret>> {
        self.credentials.as_ref().map(|credentials| credentials()).transpose()
    }
}

/// Returns `user:password`, for every connection anew, and after a refusal.
pub(crate) type Credentials = Arc<dyn Fn() -> Result<Secret> + Send + Sync>;

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("servers", &self.servers).finish_non_exhaustive()
    }
}
