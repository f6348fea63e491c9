//! What is sent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Body of `PUT /v1/agent/service/register`. Has no script check and never will: every client of
/// the agent could then run programs on it.
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
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) enable_tag_override: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) tagged_addresses: BTreeMap<String, TaggedAddress>,
    pub(crate) checks: Vec<CheckRegistration>,
}

/// In a configuration it has the names of the setter's arguments.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all(serialize = "PascalCase"), deny_unknown_fields)]
pub(crate) struct TaggedAddress {
    #[serde(rename(deserialize = "host"))]
    pub(crate) address: String,
    pub(crate) port: u16,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Weights {
    pub(crate) passing: u16,
    pub(crate) warning: u16,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct CheckRegistration {
    /// Given, because Consul's own ids depend on the position, and are the agent's, not the
    /// service's: a check with the id of another service's is taken away from it.
    #[serde(rename = "CheckID")]
    pub(crate) id: String,
    #[serde(rename = "Name")]
    pub(crate) name: String,
    #[serde(rename = "Notes")]
    pub(crate) notes: String,
    #[serde(rename = "TTL", skip_serializing_if = "Option::is_none")]
    pub(crate) ttl: Option<String>,
    /// Of a check that the agent does not have yet; of another it is ignored.
    #[serde(rename = "Status", skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<&'static str>,
    #[serde(rename = "HTTP", skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<String>,
    #[serde(rename = "Method", skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<String>,
    #[serde(rename = "TLSSkipVerify", skip_serializing_if = "is_false")]
    pub(crate) tls_skip_verify: bool,
    #[serde(rename = "TCP", skip_serializing_if = "Option::is_none")]
    pub(crate) tcp: Option<String>,
    #[serde(rename = "GRPC", skip_serializing_if = "Option::is_none")]
    pub(crate) grpc: Option<String>,
    #[serde(rename = "GRPCUseTLS", skip_serializing_if = "is_false")]
    pub(crate) grpc_use_tls: bool,
    #[serde(rename = "AliasService", skip_serializing_if = "Option::is_none")]
    pub(crate) alias_service: Option<String>,
    #[serde(rename = "Interval", skip_serializing_if = "Option::is_none")]
    pub(crate) interval: Option<String>,
    #[serde(rename = "Timeout", skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<String>,
    #[serde(rename = "SuccessBeforePassing", skip_serializing_if = "is_zero")]
    pub(crate) success_before_passing: u32,
    #[serde(rename = "FailuresBeforeCritical", skip_serializing_if = "is_zero")]
    pub(crate) failures_before_critical: u32,
    #[serde(rename = "DeregisterCriticalServiceAfter", skip_serializing_if = "Option::is_none")]
    pub(crate) deregister_critical_service_after: Option<String>,
}

impl ServiceRegistration {
    pub(crate) fn has_check(&self, id: &str) -> bool {
        self.checks.iter().any(|check| check.id == id)
    }
}

/// Body of `PUT /v1/agent/check/update/:id`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CheckUpdate {
    pub(crate) status: &'static str,
    pub(crate) output: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}
