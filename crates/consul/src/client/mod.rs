//! The part of Consul's HTTP interface that discovery needs, typed.

pub(crate) mod error;
mod http;
pub(crate) mod reply;
pub(crate) mod request;
#[cfg(test)]
mod tests;
mod tls;

use std::{sync::Arc, time::Duration};

use serde_json::value::RawValue;
use tower_sd_core::{Health, Result};

use self::{
    http::{Answer, Call, Wire},
    reply::{Meta, Service},
    request::{CheckUpdate, ServiceRegistration},
};
use crate::ConsulConfig;

/// A client of one Consul agent, shared by registrars and instancers. `Clone` is one `Arc`.
#[derive(Clone, Debug)]
pub struct ConsulClient(Arc<Wire>);

/// One reading of `GET /v1/health/service/:name`.
#[derive(Debug)]
pub(crate) struct HealthAnswer {
    pub(crate) meta: Meta,
    /// Not parsed yet: a malformed one must not spoil the others.
    pub(crate) entries: Vec<Box<RawValue>>,
}

/// Whether the agent knew what it was told about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Known {
    Yes,
    No,
}

impl ConsulClient {
    /// A client of the agent that `config` names. Does not connect yet.
    ///
    /// # Errors
    ///
    /// `Config` for an address that is none.
    pub fn new(config: ConsulConfig) -> Result<Self> {
        Ok(Self(Arc::new(Wire::new(config)?)))
    }

    pub(crate) async fn register(&self, service: &ServiceRegistration) -> Result<()> {
        let mut call = Call::put("register", &["agent", "service", "register"]).json(service)?;
        // Without it, a check that an earlier registration had would stay, and turn critical at its TTL.
        call.query.push(("replace-existing-checks", "true".to_owned()));
        succeed(&self.0.send(call).await?)
    }

    pub(crate) async fn update_check(
        &self,
        id: &str,
        health: &Health,
        timeout: Duration,
    ) -> Result<Known> {
        let (status, output) = match health {
            Health::Passing => ("passing", String::new()),
            Health::Warning(output) => ("warning", output.clone()),
            Health::Critical(output) => ("critical", output.clone()),
        };
        let mut call = Call::put("renew", &["agent", "check", "update", id])
            .json(&CheckUpdate { status, output })?;
        call.timeout = timeout;
        let answer = self.0.send(call).await?;
        known(&answer, error::is_unknown_check)
    }

    pub(crate) async fn deregister(&self, id: &str) -> Result<Known> {
        let call = Call::put("deregister", &["agent", "service", "deregister", id]);
        let answer = self.0.send(call).await?;
        known(&answer, error::is_unknown_service)
    }

    /// The service as this agent knows it; `None` when it does not.
    pub(crate) async fn agent_service(&self, id: &str) -> Result<Option<Service>> {
        let call = Call::get("verify", &["agent", "service", id]);
        let answer = self.0.send(call).await?;
        match known(&answer, error::is_unknown_service)? {
            Known::No => Ok(None),
            Known::Yes => serde_json::from_slice(&answer.body).map(Some).map_err(|cause| {
                error::garbled("verify", "not a service as Consul writes it").with_source(cause)
            }),
        }
    }

    /// Reads the entries of a service; blocks until they may have changed, or `wait` is over, when `query` has an index.
    pub(crate) async fn health(
        &self,
        service: &str,
        query: Vec<(&'static str, String)>,
        wait: Option<Duration>,
    ) -> Result<HealthAnswer> {
        let mut call = Call::get("follow", &["health", "service", service]);
        call.query = query;
        if let Some(wait) = wait {
            call.timeout = wait + wait / 16 + HOLD;
        }
        let answer = self.0.send(call).await?;
        succeed(&answer)?;
        let entries: Option<Vec<Box<RawValue>>> =
            serde_json::from_slice(&answer.body).map_err(|cause| {
                error::garbled("follow", "not a list of services").with_source(cause)
            })?;
        Ok(HealthAnswer { meta: Meta::of(&answer.headers), entries: entries.unwrap_or_default() })
    }
}

fn succeed(answer: &Answer) -> Result<()> {
    match answer.is_success() {
        true => Ok(()),
        false => Err(answer.refused()),
    }
}

fn known(answer: &Answer, is_unknown: impl Fn(u16, &str) -> bool) -> Result<Known> {
    if !answer.is_success() && is_unknown(answer.status, &answer.detail()) {
        return Ok(Known::No);
    }
    succeed(answer).map(|()| Known::Yes)
}

/// How long beyond `wait` and the agent's jitter of a sixteenth an answer may take: the 7 s for which the agent holds
/// a request while there is no leader (`rpc_hold_timeout`), and 5 s for the way.
const HOLD: Duration = Duration::from_secs(12);
