//! The catalogue behind the agent's back.
//!
//! An agent without a token of its own leaves entries there.
//!
//! Newer agents (1.15, not 1.8) remove from the catalogue with their own token, not with the
//! service's. Where ACLs deny by default and the agent has none, services that were deregistered
//! and checks that were removed stay in the catalogue; the agent answers 200 all the same.

use std::time::Duration;

use serde::Serialize;
use tower_sd_core::Result;

use super::{
    AgentCheck, ConsulClient, Known,
    http::{Answer, Call, Kind},
    known,
    reply::ServiceEntry,
    succeed,
};
use crate::error;

/// Body of `PUT /v1/catalog/deregister`. One of the two ids: with both, Consul takes the service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Removal<'a> {
    node: &'a str,
    #[serde(rename = "ServiceID", skip_serializing_if = "Option::is_none")]
    service_id: Option<&'a str>,
    #[serde(rename = "CheckID", skip_serializing_if = "Option::is_none")]
    check_id: Option<&'a str>,
}

impl ConsulClient {
    /// The checks that the catalogue has for a service of a node; none where the token may not see
    /// them.
    pub(crate) async fn listed_checks(
        &self,
        node: &str,
        service_id: &str,
    ) -> Result<Vec<AgentCheck>> {
        let mut call = Call::get("verify", &["health", "node", node]);
        call.kind = Kind::Verify;
        call.query.extend(filter("ServiceID", service_id));
        // Any server will do: a check that is not known to it yet is found next time.
        call.query.push(("stale", String::new()));
        let answer = self.bounded(call).await?;
        succeed(&answer)?;
        let checks: Vec<AgentCheck> = answer.list("checks")?;
        Ok(checks.into_iter().filter(|check| check.is_of(service_id)).collect())
    }

    /// The node on which the catalogue has a service, where there is just one.
    pub(crate) async fn node_of(&self, service: &str, service_id: &str) -> Result<Option<String>> {
        let query = filter("Service.ID", service_id).into_iter().collect();
        let answer = self.registered(service, query).await?;
        let entries = answer.entries.iter();
        let mut nodes = entries
            .filter_map(|entry| serde_json::from_str::<ServiceEntry>(entry.get()).ok())
            .filter(|entry| entry.service.id == service_id)
            .map(|entry| entry.node.node);
        Ok(nodes.next().filter(|_| nodes.next().is_none()))
    }

    /// Takes a check out of the catalogue. Only for one that the agent does not have: it would put
    /// it back.
    pub(crate) async fn unlist_check(&self, node: &str, check_id: &str) -> Result<Known> {
        let removal = Removal { node, service_id: None, check_id: Some(check_id) };
        self.unlist(removal, error::is_unknown_check).await
    }

    /// Takes a service and its checks out of the catalogue. Only for one that the agent does not
    /// have.
    pub(crate) async fn unlist_service(&self, node: &str, service_id: &str) -> Result<Known> {
        let removal = Removal { node, service_id: Some(service_id), check_id: None };
        self.unlist(removal, error::is_unknown_service).await
    }

    async fn unlist(
        &self,
        removal: Removal<'_>,
        is_unknown: impl Fn(u16, &str) -> bool,
    ) -> Result<Known> {
        let call = Call::put("deregister", &["catalog", "deregister"]).json(&removal)?;
        known(&self.bounded(call).await?, is_unknown)
    }

    /// Whether the agent denies us to read a service; lists of a catalogue are filtered without a
    /// word.
    pub(crate) async fn is_hidden(&self, service: &str) -> Result<bool> {
        // The agent checks the permission before the service.
        let call = Call::get("follow", &["agent", "health", "service", "name", service]);
        Ok(matches!(self.bounded(call).await?.status, 401 | 403))
    }

    async fn bounded(&self, mut call: Call<'_>) -> Result<Answer> {
        call.timeout = TIMEOUT;
        self.0.wire.send(call).await
    }
}

/// Keeps the answer short. `None`: the id cannot be written in Consul's filter language.
fn filter(field: &str, id: &str) -> Option<(&'static str, String)> {
    // Nothing is special between these, so an id cannot end the text.
    (!id.contains('`')).then(|| ("filter", format!("{field} == `{id}`")))
}

/// The agent has answered by then, and a caller that stops is waiting.
const TIMEOUT: Duration = Duration::from_secs(3);
