//! Asks name servers, one after the other, and judges what they say.

pub(crate) mod answer;
mod error;
mod servers;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use hickory_resolver::{
    net::{
        DnsError, NetError,
        xfer::{DnsHandle, FirstAnswer},
    },
    proto::{
        op::{DnsRequestOptions, Query},
        rr::{Name, RecordType},
    },
};
use tokio::time::timeout;
use tower_sd_core::{Error, Result};

use self::{
    answer::{Answer, Found, Step},
    servers::{Server, Servers},
};
use crate::DnsConfig;

/// The name servers, and the connections to them, which all instancers made with a clone of it share.
#[derive(Clone, Debug)]
pub struct DnsClient(Arc<Servers>);

impl DnsClient {
    /// A client of these name servers. It asks nobody yet.
    #[must_use]
    pub fn new(config: DnsConfig) -> Self {
        Self(Arc::new(Servers::new(config)))
    }

    /// What the hosts file says of an address; nothing when name servers are given.
    pub(crate) fn in_hosts_file(&self, name: &Name, kind: RecordType) -> Option<Found> {
        self.0.in_hosts_file(&Query::query(name.clone(), kind))
    }

    /// The records of `name`, whatever aliases lie between.
    pub(crate) async fn resolve(&self, name: &Name, kind: RecordType) -> Result<Answer> {
        let (mut alias, mut ttl) = (name.clone(), Duration::MAX);
        for _ in 0..MAX_ALIASES {
            match self.ask(&alias, kind).await? {
                Step::Found(found) => {
                    return Ok(Answer::Found(Found { ttl: found.ttl.min(ttl), ..found }));
                }
                Step::Nothing { ttl: negative } => {
                    return Ok(Answer::Nothing { ttl: negative.min(ttl) });
                }
                Step::Alias { target, ttl: of_alias } => {
                    (alias, ttl) = (target, ttl.min(of_alias));
                }
            }
        }
        Err(error::too_many_aliases(name))
    }

    /// "There are none" is believed when all servers say it: of two that disagree, or of which one is silent, one knows
    /// less than the other.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Step> {
        let (mut nothing, mut failed) = (None, None);
        for server in self.0.current()? {
            match self.ask_one(&server, name, kind).await {
                Ok(Step::Nothing { ttl }) => {
                    self.0.answered(&server, false);
                    nothing = Some(nothing.map_or(ttl, |least: Duration| least.min(ttl)));
                }
                Ok(step) => {
                    self.0.answered(&server, true);
                    return Ok(step);
                }
                Err(error) => {
                    tracing::debug!(server = %server.address, %error, "no answer");
                    self.0.failed(&server);
                    failed = Some(error);
                }
            }
        }
        match (failed, nothing) {
            (Some(error), _) => Err(error),
            (None, Some(ttl)) => Ok(Step::Nothing { ttl }),
            (None, None) => Err(error::no_servers()),
        }
    }

    async fn ask_one(&self, server: &Server, name: &Name, kind: RecordType) -> Result<Step> {
        let bound = self.0.config().timeout;
        let explain = |cause: NetError| -> Error { error::of(cause, name, server.address) };
        // A server that is silent has its turns taken for as long as that; the next one is not kept waiting for longer.
        let turn = timeout(bound, server.room.acquire()).await;
        let _turn = turn.map_err(|_elapsed| explain(NetError::Timeout))?;
        let asked = server.pool.lookup(Query::query(name.clone(), kind), options()).first_answer();
        match timeout(bound, asked).await {
            Ok(Ok(response)) => answer::judge(&response, name, kind),
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => {
                answer::judge_none(&none, name, kind)
            }
            Ok(Err(cause)) => Err(explain(cause)),
            Err(_elapsed) => Err(explain(NetError::Timeout)),
        }
    }
}

fn options() -> DnsRequestOptions {
    // 1232 bytes of EDNS, recursion wanted.
    DnsRequestOptions::default()
}

/// What BIND and unbound follow is 16 and 11; nobody needs more.
const MAX_ALIASES: usize = 8;
