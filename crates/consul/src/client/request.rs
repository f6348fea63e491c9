//! What is sent.

use std::collections::BTreeMap;

use serde::Serialize;

/// Body of `PUT /v1/agent/service/register`. Has no script check and never will: whoever reaches the agent could then run
/// programs on it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServiceRegistration {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) tags: Vec<String>,
    pub(crate) meta: BTreeMap<String, String>,
    pub(crate) weights: Weights,
    pub(crate) checks: Vec<CheckRegistration>,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Weights {
    pub(crate) passing: u16,
    pub(crate) warning: u16,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct CheckRegistration {
    /// Given, because Consul's own ids depend on the position, and are the agent's, not the service's: a check with the
    /// id of another service's is taken away from it.
    #[serde(rename = "CheckID")]
    pub(crate) id: String,
    #[serde(rename = "Name")]
    pub(crate) name: String,
    #[serde(rename = "TTL", skip_serializing_if = "Option::is_none")]
    pub(crate) ttl: Option<String>,
    #[serde(rename = "Status", skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<&'static str>,
    #[serde(rename = "DeregisterCriticalServiceAfter", skip_serializing_if = "Option::is_none")]
    pub(crate) deregister_critical_service_after: Option<String>,
}

/// Body of `PUT /v1/agent/check/update/:id`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CheckUpdate {
    pub(crate) status: &'static str,
    pub(crate) output: String,
}
