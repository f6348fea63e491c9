//! The part of Consul's HTTP interface that discovery needs, typed.

mod agent;
mod catalogue;
mod http;
mod hub;
pub(crate) mod kv;
pub(crate) mod reply;
pub(crate) mod request;
mod streams;
#[cfg(test)]
mod tests;
mod token;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::value::RawValue;
use tokio::time::{sleep, timeout};
use tower_sd_core::{Error, ErrorKind, InstanceId, Result, TaskGroup};

pub(crate) use self::{
    agent::{AgentCheck, AgentEntry, status_of},
    http::check_path,
    hub::Ticket,
};
use self::{
    http::{Answer, Call, Kind, Wire},
    hub::Sharing,
    reply::{Meta, ServiceEntry},
};
use crate::{BACKEND, ConsulConfig};

/// A client of one Consul agent, shared by registrars and instancers. `Clone` is one `Arc`.
#[derive(Clone, Debug)]
pub(crate) struct ConsulClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    wire: Arc<Wire>,
    sharing: Arc<Sharing>,
}

/// One reading of `GET /v1/health/service/:name`.
#[derive(Debug)]
pub(crate) struct HealthAnswer {
    pub(crate) meta: Meta,
    /// Not parsed yet: a malformed one must not spoil the others.
    pub(crate) entries: Vec<Box<RawValue>>,
    /// Its length in bytes.
    pub(crate) size: usize,
}

/// Whether the agent had the entry that a call was about.
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
    /// `Config` for settings that cannot work.
    pub(crate) fn new(config: ConsulConfig) -> Result<Self> {
        config.validate()?;
        let wire = Arc::new(Wire::new(config)?);
        let sharing = Sharing::new(Arc::clone(&wire), TaskGroup::new());
        Ok(Self(Arc::new(Inner { wire, sharing })))
    }

    pub(crate) fn config(&self) -> &ConsulConfig {
        self.0.wire.config()
    }

    /// Whether a token is sent.
    pub(crate) fn has_token(&self) -> bool {
        self.0.wire.token().value.is_some()
    }

    /// A place among the followers of this client.
    pub(crate) fn follow(&self, service: &str) -> Ticket {
        self.0.sharing.join(Some(service))
    }

    /// A place among the followers of this client, for one of keys.
    pub(crate) fn follow_keys(&self) -> Ticket {
        self.0.sharing.join(None)
    }

    /// All services of the catalogue, each with the tags that its instances have, sorted.
    ///
    /// # Errors
    ///
    /// The catalogue could not be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn services(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let answer = self.0.wire.send(Call::get("services", &["catalog", "services"])).await?;
        succeed(&answer)?;
        let mut services: BTreeMap<String, Vec<String>> = answer.list("services")?;
        services.values_mut().for_each(|tags| tags.sort());
        Ok(services)
    }

    /// Waits until the catalogue lists the instance and all its checks pass, at most `bound`.
    ///
    /// An agent accepts a registration before the servers have it, and when they are away: a
    /// deployment that stops the old instances afterwards waits for this.
    ///
    /// # Errors
    ///
    /// `Timeout`, with the last failure as its source.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn wait_until_visible(
        &self,
        service: &str,
        instance: &InstanceId,
        id: &str,
        bound: Duration,
    ) -> Result<()> {
        let mut last = None;
        let visible = async {
            loop {
                match self.lists(service, id).await {
                    Ok(true) => return,
                    Ok(false) => {}
                    Err(error) => last = Some(error),
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        if timeout(bound, visible).await.is_ok() {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Timeout, BACKEND, "wait_until_visible")
            .with_instance(instance.clone())
            .with_message(format!("not among the passing instances of {service} within {bound:?}"));
        Err(match last {
            Some(cause) => error.with_source(cause),
            None => error,
        })
    }

    async fn lists(&self, service: &str, id: &str) -> Result<bool> {
        let query = vec![("passing", "true".to_owned()), ("consistent", String::new())];
        let answer = self.registered(service, query).await?;
        let mut entries = answer.entries.iter();
        Ok(entries.any(|entry| {
            let parsed = serde_json::from_str::<ServiceEntry>(entry.get());
            parsed.is_ok_and(|entry| entry.service.id == id)
        }))
    }

    /// Reads the entries of a service; blocks until they may have changed, or `wait` is over, when
    /// `query` has an index.
    pub(crate) async fn health(
        &self,
        service: &str,
        query: Vec<(&'static str, String)>,
        wait: Option<Duration>,
    ) -> Result<HealthAnswer> {
        let call = Call { query, ..Call::get("follow", &["health", "service", service]) };
        self.entries(wait.into_iter().fold(call, Call::blocking)).await
    }

    /// Reads the entries of a service where this agent registers.
    async fn registered(
        &self,
        service: &str,
        query: Vec<(&'static str, String)>,
    ) -> Result<HealthAnswer> {
        let call = Call::get("verify", &["health", "service", service]);
        self.entries(Call { query, kind: Kind::Verify, ..call }).await
    }

    async fn entries(&self, call: Call<'_>) -> Result<HealthAnswer> {
        let answer = self.0.wire.send(call).await?;
        succeed(&answer)?;
        let entries: Option<Vec<Box<RawValue>>> = answer.list("services")?;
        Ok(HealthAnswer {
            meta: Meta::of(&answer.headers),
            entries: entries.unwrap_or_default(),
            size: answer.body.len(),
        })
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

/// A catalogue of one agent has it after a few milliseconds.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
