//! The agent's own view and its changes: what registrations are made of.

use std::time::Duration;

use serde::{Deserialize, de::IgnoredAny};
use tower_sd_core::{CheckResult, Result};

use super::{
    ConsulClient, Known,
    http::{Call, Kind},
    known,
    reply::{DefaultPolicy, Meta, Service, null_is_default},
    request::{CheckUpdate, ServiceRegistration},
    succeed,
};
use crate::error;

/// The agent's entry of a service.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AgentEntry {
    pub(crate) service: Service,
    #[serde(default, deserialize_with = "null_is_default")]
    checks: Vec<AgentCheck>,
}

/// The agent's answer about a service that it does not have.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Unknown {
    #[expect(dead_code, reason = "its presence is what counts")]
    aggregated_status: IgnoredAny,
}

/// A check that the agent has.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AgentCheck {
    #[serde(default)]
    pub(crate) node: String,
    #[serde(rename = "CheckID")]
    pub(crate) id: String,
    #[serde(rename = "ServiceID", default)]
    service_id: String,
    #[serde(default)]
    pub(crate) status: String,
    /// The reason of a maintenance.
    #[serde(default)]
    pub(crate) notes: String,
}

/// An accepted registration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accepted {
    pub(crate) default_policy: DefaultPolicy,
    /// The token that the agent writes the entry with.
    pub(crate) token_generation: u64,
}

impl AgentEntry {
    /// Its own checks, without those of its node.
    pub(crate) fn checks(&self) -> impl Iterator<Item = &AgentCheck> {
        self.checks.iter().filter(|check| check.is_of(&self.service.id))
    }
}

impl AgentCheck {
    pub(super) fn is_of(&self, service_id: &str) -> bool {
        self.service_id == service_id
    }
}

impl ConsulClient {
    /// Counts the tokens that a file has had.
    pub(crate) fn token_generation(&self) -> u64 {
        self.0.wire.token().generation
    }

    /// Reads what this agent has under a service id. Needs `service:read` only.
    pub(crate) async fn agent_entry(
        &self,
        operation: &'static str,
        id: &str,
    ) -> Result<Option<AgentEntry>> {
        let mut call = Call::get(operation, &["agent", "health", "service", "id", id]);
        call.kind = Kind::Write;
        let answer = self.0.wire.send(call).await?;
        // The status is that of the checks: 429 for a warning, 503 for a critical one.
        if matches!(answer.status, 200 | 429 | 503)
            && let Ok(entry) = serde_json::from_slice(&answer.body)
        {
            return Ok(Some(entry));
        }
        match answer.status {
            // A gateway's JSON has another shape.
            404 if serde_json::from_slice::<Unknown>(&answer.body).is_ok() => Ok(None),
            _ => {
                succeed(&answer)?;
                Err(error::garbled(operation, "not a service as Consul writes it"))
            }
        }
    }

    /// Registers a service. A check that is not part of the request stays: an operator's
    /// maintenance is one.
    pub(crate) async fn register(&self, service: &ServiceRegistration) -> Result<Accepted> {
        let call = Call::put("register", &["agent", "service", "register"]).json(service)?;
        let answer = self.0.wire.send(call).await?;
        succeed(&answer)?;
        Ok(Accepted {
            default_policy: Meta::of(&answer.headers).default_policy,
            token_generation: answer.token_generation(),
        })
    }

    /// Reports the health of a service, and thereby that it lives.
    pub(crate) async fn update_check(
        &self,
        id: &str,
        health: &CheckResult,
        timeout: Duration,
    ) -> Result<Known> {
        let (status, output) = status_of(health);
        let output = output.to_owned();
        let mut call = Call::put("renew", &["agent", "check", "update", id])
            .json(&CheckUpdate { status, output })?;
        (call.kind, call.timeout) = (Kind::Heartbeat, timeout);
        let answer = self.0.wire.send(call).await?;
        known(&answer, error::is_unknown_check)
    }

    pub(crate) async fn deregister_check(&self, id: &str) -> Result<Known> {
        let call = Call::put("register", &["agent", "check", "deregister", id]);
        let answer = self.0.wire.send(call).await?;
        known(&answer, error::is_unknown_check)
    }

    pub(crate) async fn deregister(&self, id: &str) -> Result<Known> {
        let call = Call::put("deregister", &["agent", "service", "deregister", id]);
        let answer = self.0.wire.send(call).await?;
        known(&answer, error::is_unknown_service)
    }

    /// Puts a service of this agent into maintenance, or ends that: in maintenance it leaves
    /// `?passing` and DNS, and stays registered. A maintenance that is on keeps its reason.
    pub(crate) async fn set_maintenance(&self, id: &str, reason: Option<&str>) -> Result<Known> {
        let mut call = Call::put("register", &["agent", "service", "maintenance", id]);
        call.query.push(("enable", reason.is_some().to_string()));
        call.query.extend(reason.map(|reason| ("reason", reason.to_owned())));
        let answer = self.0.wire.send(call).await?;
        known(&answer, error::is_unknown_service)
    }
}

/// Consul's word for a health, and the output of the check.
pub(crate) fn status_of(health: &CheckResult) -> (&'static str, &str) {
    match health {
        CheckResult::Passing => ("passing", ""),
        CheckResult::Warning(output) => ("warning", output),
        CheckResult::Critical(output) => ("critical", output),
    }
}
