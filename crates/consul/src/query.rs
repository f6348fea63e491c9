use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tower_sd_core::{InstanceStatus, duration};

/// Which instances of a service to follow.
///
/// By default those that are passing or warning, of the agent's datacenter, as the leader has them.
#[derive(Clone, Debug, Deserialize)]
#[must_use]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    #[serde(skip)]
    pub(crate) service: String,
    pub(crate) tags: Vec<String>,
    pub(crate) health: Wanted,
    #[serde(deserialize_with = "wait")]
    pub(crate) wait: Duration,
    pub(crate) consistency: Consistency,
    pub(crate) tagged_address: Option<String>,
    #[serde(deserialize_with = "consistency_check_interval")]
    pub(crate) consistency_check_interval: Duration,
    pub(crate) near: Option<String>,
    pub(crate) filter: Option<String>,
}

/// The server whose answer is accepted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Consistency {
    Leader,
    Stale,
    Consistent,
}

/// Which states of health are wanted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wanted {
    Passing,
    NotCritical,
    Any,
}

impl Default for Query {
    fn default() -> Self {
        Self::new("")
    }
}

impl Query {
    /// The instances of `service` that are passing or warning.
    ///
    /// A warning one has the weight that it registered for that.
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            tags: Vec::new(),
            health: Wanted::NotCritical,
            wait: WAIT,
            consistency: Consistency::Leader,
            tagged_address: None,
            consistency_check_interval: PROBE_EVERY,
            near: None,
            filter: None,
        }
    }

    /// Only instances with this tag; called again, with all of them.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Only instances whose every check passes.
    ///
    /// Consul's `?passing` and its DNS have it so.
    pub fn passing(self) -> Self {
        Self { health: Wanted::Passing, ..self }
    }

    /// All instances, critical ones too, with their status.
    pub fn any_health(self) -> Self {
        Self { health: Wanted::Any, ..self }
    }

    /// Lists instances near this node first, `_agent` for the agent's own.
    ///
    /// Snapshots are sorted by id all the same; but such queries do not read the streaming view of
    /// newer agents, which hides an outage of the servers.
    pub fn near(self, node: impl Into<String>) -> Self {
        Self { near: Some(node.into()), ..self }
    }

    /// Only entries that this expression of Consul's filter language selects:
    /// `Service.Meta.shard == "3"`.
    pub fn filter(self, expression: impl Into<String>) -> Self {
        Self { filter: Some(expression.into()), ..self }
    }

    /// Any server may answer: works without a leader, and may be behind.
    ///
    /// An answer of a server without contact to the leader for 10 s is an error. Where services
    /// share their queries, a read after a change is the leader's if there is one.
    pub fn stale(self) -> Self {
        Self { consistency: Consistency::Stale, ..self }
    }

    /// The leader confirms its leadership before it answers.
    ///
    /// It confirms with the others that it still is the leader.
    pub fn consistent(self) -> Self {
        Self { consistency: Consistency::Consistent, ..self }
    }

    /// Uses this one of an instance's registered addresses (`wan`).
    ///
    /// It applies where an instance has registered that address.
    pub fn tagged_address(self, tag: impl Into<String>) -> Self {
        Self { tagged_address: Some(tag.into()), ..self }
    }

    /// How often a plain read checks a streaming agent. Defaults to 45 s.
    ///
    /// The interval varies within 10 %.
    ///
    /// From 1.10 on, agents answer blocking queries from a view that keeps returning 200 when the
    /// servers are gone. An outage shows as stale within this time.
    pub fn consistency_check_interval(self, interval: Duration) -> Self {
        Self { consistency_check_interval: interval.clamp(MIN_PROBE, MAX_PROBE), ..self }
    }

    /// How long a blocking query waits. Defaults to 55 s.
    ///
    /// That is below the 60 s after which many proxies close an idle connection. Consul allows
    /// 10 min.
    pub fn wait(self, wait: Duration) -> Self {
        Self { wait: wait.clamp(MIN_WAIT, MAX_WAIT), ..self }
    }

    /// The parameters of a query, without an index. Health is filtered by the publisher: an
    /// instance that fails its check is no loss of one.
    pub(crate) fn parameters(&self) -> Vec<(&'static str, String)> {
        let mut parameters: Vec<_> = self.tags.iter().map(|tag| ("tag", tag.clone())).collect();
        let given = [("near", &self.near), ("filter", &self.filter)];
        parameters.extend(given.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))));
        parameters
    }

    /// The consistency of an ordinary read; empty values are flags.
    pub(crate) fn consistency(&self) -> Option<(&'static str, String)> {
        match self.consistency {
            Consistency::Leader => None,
            Consistency::Stale => Some(("stale", String::new())),
            Consistency::Consistent => Some(("consistent", String::new())),
        }
    }

    /// Whether an instance of this health is wanted.
    pub(crate) fn wants(&self, status: InstanceStatus) -> bool {
        match self.health {
            Wanted::Passing => status == InstanceStatus::Passing,
            Wanted::NotCritical => status != InstanceStatus::Critical,
            Wanted::Any => true,
        }
    }
}

impl<T: Into<String>> From<T> for Query {
    fn from(service: T) -> Self {
        Self::new(service)
    }
}

const PROBE_EVERY: Duration = Duration::from_secs(45);
const MIN_PROBE: Duration = Duration::from_millis(100);
const MAX_PROBE: Duration = Duration::from_secs(86_400);
const WAIT: Duration = Duration::from_secs(55);
/// Zero would mean Consul's own default of 5 min.
const MIN_WAIT: Duration = Duration::from_millis(10);
const MAX_WAIT: Duration = Duration::from_secs(600);

fn wait<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    duration::deserialize(deserializer).map(|wait| wait.clamp(MIN_WAIT, MAX_WAIT))
}

fn consistency_check_interval<'de, D>(deserializer: D) -> Result<Duration, D::Error>
where
    D: Deserializer<'de>,
{
    duration::deserialize(deserializer).map(|interval| interval.clamp(MIN_PROBE, MAX_PROBE))
}
