//! What is understood of the answers.
//!
//! Fields may be missing: a proxy or a version of tomorrow leaves some out.

use std::collections::BTreeMap;

use http::HeaderMap;
use serde::{Deserialize, Deserializer};

/// One element of `GET /v1/health/service/:name`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServiceEntry {
    #[serde(default)]
    pub(crate) node: Node,
    pub(crate) service: Service,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) checks: Vec<Check>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Node {
    #[serde(default)]
    pub(crate) node: String,
    #[serde(default)]
    pub(crate) address: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) tagged_addresses: BTreeMap<String, String>,
}

/// A service as the catalogue and the agent show it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Service {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(default, alias = "Service")]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) address: String,
    /// Wider than a port: Consul takes any number.
    #[serde(default)]
    pub(crate) port: i64,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) tags: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) meta: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) weights: Weights,
    #[serde(default)]
    pub(crate) locality: Option<Locality>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) tagged_addresses: BTreeMap<String, TaggedAddress>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TaggedAddress {
    #[serde(default)]
    pub(crate) address: String,
    #[serde(default)]
    pub(crate) port: i64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Weights {
    pub(crate) passing: u32,
    pub(crate) warning: u32,
}

/// Where the service runs, as newer agents report it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Locality {
    #[serde(default)]
    pub(crate) zone: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Check {
    #[serde(rename = "CheckID", default)]
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) status: String,
}

impl Default for Weights {
    /// Consul's own default.
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}

/// The headers of an answer. Those of an error are ignored: 1.8.7 sends index 1 with them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Meta {
    /// `None`: missing, or no number.
    pub(crate) index: Option<u64>,
    /// The agent answered from a view of its own, which keeps returning 200 when the servers are
    /// gone; what it reports of leader and last contact is constant.
    pub(crate) streaming: bool,
    /// Milliseconds since the last contact of the answering server with the leader.
    pub(crate) last_contact: Option<u64>,
    pub(crate) filtered_by_acls: bool,
    pub(crate) default_policy: DefaultPolicy,
}

/// The default policy of ACLs. Newer agents send it with every answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum DefaultPolicy {
    #[default]
    Unknown,
    /// Or there are no ACLs.
    Allow,
    Deny,
}

impl Meta {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            index: text("x-consul-index").and_then(|index| index.parse().ok()),
            streaming: text("x-consul-query-backend") == Some("streaming"),
            last_contact: text("x-consul-lastcontact").and_then(|age| age.parse().ok()),
            filtered_by_acls: text("x-consul-results-filtered-by-acls") == Some("true"),
            default_policy: match text("x-consul-default-acl-policy") {
                Some("allow") => DefaultPolicy::Allow,
                Some("deny") => DefaultPolicy::Deny,
                _ => DefaultPolicy::Unknown,
            },
        }
    }
}

/// Go writes an empty list as `null`.
pub(super) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
