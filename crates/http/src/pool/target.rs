use std::{fmt, sync::Arc};

use http::uri::{Authority, Scheme};
use tower_sd_balance::Observer;
use tower_sd_net::{Dialer, Target as Peer, TlsClient};

use super::limit::{ConnectionLimit, Place};
use crate::HostPolicy;

/// Where the connections lead.
#[derive(Clone)]
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
    pub(crate) limit: Option<ConnectionLimit>,
}

impl Target {
    pub(crate) fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP }
    }

    /// Room for up to `n` connections.
    pub(super) fn places(&self, n: usize, has_none: bool) -> Vec<Option<Place>> {
        let place = |i| match &self.limit {
            Some(limit) => limit.place(has_none && i == 0).map(Some),
            None => Some(None),
        };
        (0..n).map_while(place).collect()
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
