//! The part of Consul's HTTP interface that discovery needs, typed.

mod catalogue;
pub(crate) mod error;
mod http;
mod hub;
pub(crate) mod kv;
pub(crate) mod reply;
pub(crate) mod request;
mod streams;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::value::RawValue;
use tokio::time::{sleep, timeout};
use tower_sd_core::{Error, ErrorKind, Health, InstanceId, Result, Tasks};

#[cfg(test)]
pub(crate) use self::http::token_of;
pub(crate) use self::{catalogue::PlacedCheck, hub::Ticket};
use self::{
    http::{Answer, Call, Kind, Wire},
    hub::Hub,
    reply::{Meta, Service, ServiceEntry},
    request::{CheckUpdate, ServiceRegistration},
};
use crate::{BACKEND, ConsulConfig};

/// A client of one Consul agent, shared by registrars and instancers. `Clone` is one `Arc`.
#[derive(Clone, Debug)]
pub struct ConsulClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    wire: Arc<Wire>,
    hub: Arc<Hub>,
    tasks: Tasks,
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
    /// `Config` for settings that cannot work.
    pub fn new(config: ConsulConfig) -> Result<Self> {
        config.validate()?;
        let hub = Arc::new(Hub::new(config.follow_alone));
        let wire = Arc::new(Wire::new(config)?);
        Ok(Self(Arc::new(Inner { wire, hub, tasks: Tasks::new() })))
    }

    pub(crate) fn config(&self) -> &ConsulConfig {
        self.0.wire.config()
    }

    /// Whether a token is sent.
    pub(crate) fn has_token(&self) -> bool {
        self.0.wire.token().is_some()
    }

    /// A place among the followers of this client.
    pub(crate) fn follow(&self, service: &str) -> Ticket {
        let Inner { wire, hub, tasks } = &*self.0;
        let (ticket, starts) = hub.join(service, &wire.streams);
        if starts {
            let (wire, hub) = (Arc::clone(wire), Arc::clone(hub));
            tasks.spawn(|stop| hub.run(wire, stop));
        }
        ticket
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
    pub async fn services(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let answer = self.0.wire.send(Call::get("services", &["catalog", "services"])).await?;
        succeed(&answer)?;
        let mut services: BTreeMap<String, Vec<String>> = serde_json::from_slice(&answer.body)
            .map_err(|cause| {
                error::garbled("services", "not a list of services").with_source(cause)
            })?;
        services.values_mut().for_each(|tags| tags.sort());
        Ok(services)
    }

    /// Waits until the catalogue lists the instance and all its checks pass, at most `bound`.
    ///
    /// An agent accepts a registration before the servers have it, and when they are away: a deployment that stops the
    /// old instances afterwards waits for this.
    ///
    /// # Errors
    ///
    /// `Timeout`, with the last failure as its source.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait_until_visible(
        &self,
        service: &str,
        instance: &InstanceId,
        bound: Duration,
    ) -> Result<()> {
        let id = crate::mapping::service_id(service, instance.as_str());
        let mut last = None;
        let visible = async {
            loop {
                match self.lists(service, &id).await {
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
        let answer = self.health(service, query, None).await?;
        let mut entries = answer.entries.iter();
        Ok(entries.any(|entry| {
            let parsed = serde_json::from_str::<ServiceEntry>(entry.get());
            parsed.is_ok_and(|entry| entry.service.id == id)
        }))
    }

    pub(crate) async fn register(&self, service: &ServiceRegistration) -> Result<Meta> {
        let mut call = Call::put("register", &["agent", "service", "register"]).json(service)?;
        // Without it, a check that an earlier registration had would stay, and turn critical at its TTL.
        call.query.push(("replace-existing-checks", "true".to_owned()));
        let answer = self.0.wire.send(call).await?;
        succeed(&answer).map(|()| Meta::of(&answer.headers))
    }

    /// Reports the health of a service, and thereby that it lives; bounded when it is one of many heartbeats.
    pub(crate) async fn update_check(
        &self,
        id: &str,
        health: &Health,
        timeout: Option<Duration>,
    ) -> Result<Known> {
        let (status, output) = status_of(health);
        let output = output.to_owned();
        let mut call = Call::put("renew", &["agent", "check", "update", id])
            .json(&CheckUpdate { status, output })?;
        if let Some(timeout) = timeout {
            call.timeout = timeout;
            call.kind = Kind::Heartbeat;
        }
        let answer = self.0.wire.send(call).await?;
        known(&answer, error::is_unknown_check)
    }

    pub(crate) async fn deregister(&self, id: &str) -> Result<Known> {
        let call = Call::put("deregister", &["agent", "service", "deregister", id]);
        let answer = self.0.wire.send(call).await?;
        known(&answer, error::is_unknown_service)
    }

    /// Puts a service of this agent into maintenance: it leaves `?passing` and DNS, and stays registered.
    pub(crate) async fn enter_maintenance(&self, id: &str, reason: &str) -> Result<Known> {
        let path = ["agent", "service", "maintenance", id];
        let mut call = Call::put("register", &path);
        call.query = vec![("enable", "true".to_owned()), ("reason", reason.to_owned())];
        let answer = self.0.wire.send(call).await?;
        known(&answer, error::is_unknown_service)
    }

    /// The service as this agent knows it; `None` when it does not.
    pub(crate) async fn agent_service(&self, id: &str) -> Result<Option<Service>> {
        let call = Call::get("verify", &["agent", "service", id]);
        let answer = self.0.wire.send(call).await?;
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
        call.kind = Kind::Read;
        if let Some(wait) = wait {
            call.timeout = wait + wait / 16 + HOLD;
            call.kind = Kind::Blocking;
        }
        let answer = self.0.wire.send(call).await?;
        succeed(&answer)?;
        let entries: Option<Vec<Box<RawValue>>> =
            serde_json::from_slice(&answer.body).map_err(|cause| {
                error::garbled("follow", "not a list of services").with_source(cause)
            })?;
        Ok(HealthAnswer {
            meta: Meta::of(&answer.headers),
            entries: entries.unwrap_or_default(),
            size: answer.body.len(),
        })
    }
}

/// Consul's word for it, and what the check had to say.
pub(crate) fn status_of(health: &Health) -> (&'static str, &str) {
    match health {
        Health::Passing => ("passing", ""),
        Health::Warning(output) => ("warning", output),
        Health::Critical(output) => ("critical", output),
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
/// How long beyond `wait` and the agent's jitter of a sixteenth an answer may take: the 7 s for which the agent holds
/// a request while there is no leader (`rpc_hold_timeout`), and 5 s for the way.
const HOLD: Duration = Duration::from_secs(12);
