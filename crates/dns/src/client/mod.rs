//! Queries name servers, one after the other, and judges their responses.

pub(crate) mod answer;
mod scope;
mod server;
mod servers;
mod system;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use hickory_resolver::{
    net::{DnsError, NetError},
    proto::{
        op::Query,
        rr::{Name, RecordType},
    },
};
use tower_sd_core::Result;

use self::{
    answer::{Answer, Found, Step},
    server::Server,
    servers::{Known, Servers},
};
use crate::{DnsConfig, error};

/// The name servers and the connections to them, shared by all clones.
#[derive(Clone, Debug)]
pub(crate) struct DnsClient(Arc<Servers>);

impl DnsClient {
    /// Creates a client of these name servers, without any query.
    pub(crate) fn new(config: DnsConfig) -> Self {
        Self(Arc::new(Servers::new(config)))
    }

    /// The hosts file's answer for an address; none if name servers are given.
    pub(crate) fn in_hosts_file(&self, name: &Name, kind: RecordType) -> Option<Answer> {
        self.0.in_hosts_file(name, kind)
    }

    /// The records of `name`, through aliases.
    pub(crate) async fn resolve(&self, name: &Name, kind: RecordType) -> Result<Answer> {
        let (mut alias, mut ttl) = (name.clone(), Duration::MAX);
        for _ in 0..MAX_ALIASES {
            match self.query(&alias, kind).await? {
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

    async fn query(&self, name: &Name, kind: RecordType) -> Result<Step> {
        let current = self.0.current()?;
        let mut step = self.query_each(&current.servers, name, kind).await;
        for _ in 1..current.attempts {
            if step.is_err() {
                step = self.query_each(&current.servers, name, kind).await;
            }
        }
        step
    }

    /// A negative response counts when all servers agree.
    ///
    /// Of two that disagree, or of which one is silent, one has less of the zone than the other.
    async fn query_each(&self, servers: &[Known], name: &Name, kind: RecordType) -> Result<Step> {
        let (mut negative_ttl, mut failed) = (Duration::MAX, None);
        for known in servers {
            match query_one(&known.server, name, kind).await {
                Ok(Step::Nothing { ttl }) => {
                    self.0.answered(known);
                    negative_ttl = negative_ttl.min(ttl);
                }
                Ok(step) => {
                    self.0.answered(known);
                    return Ok(step);
                }
                Err(error) => {
                    tracing::debug!(server = %known.server.address, %error, "query failed");
                    self.0.failed(known, &error);
                    failed = Some(error);
                }
            }
        }
        failed.map_or(Ok(Step::Nothing { ttl: negative_ttl }), Err)
    }
}

async fn query_one(server: &Server, name: &Name, kind: RecordType) -> Result<Step> {
    match server.query(Query::query(name.clone(), kind)).await {
        Ok(response) => answer::judge(&response, name, kind),
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => answer::judge_none(&none, name, kind),
        Err(cause) => Err(error::of(cause, name, server.address)),
    }
}

/// BIND follows 16 aliases and unbound 11; zones in use have one or two.
const MAX_ALIASES: usize = 8;
