use std::time::Duration;

use tower_sd_core::Status;

/// Which instances of a service to follow.
///
/// By default those that are passing or warning, of the agent's datacenter, as the leader knows them.
#[derive(Clone, Debug)]
#[must_use]
pub struct Query {
    pub(crate) service: String,
    pub(crate) tags: Vec<String>,
    pub(crate) health: Wanted,
    pub(crate) wait: Duration,
}

/// Which states of health are wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wanted {
    Passing,
    NotCritical,
    Any,
}

impl Query {
    /// The instances of `service` that are passing or warning; a warning one with the weight that it registered for that.
    pub fn service(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            tags: Vec::new(),
            health: Wanted::NotCritical,
            wait: WAIT,
        }
    }

    /// Only instances with this tag; called again, with all of them.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Only instances whose every check passes, as Consul's `?passing` and its DNS have it.
    pub fn passing(mut self) -> Self {
        self.health = Wanted::Passing;
        self
    }

    /// All instances, critical ones too, with their status.
    pub fn any_health(mut self) -> Self {
        self.health = Wanted::Any;
        self
    }

    /// How long a blocking query waits. Default 55 s: below the 60 s after which many proxies close an idle connection.
    /// Consul allows 10 min.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait.clamp(MIN_WAIT, MAX_WAIT);
        self
    }

    /// What is asked of the agent, without an index.
    pub(crate) fn parameters(&self) -> Vec<(&'static str, String)> {
        let mut parameters: Vec<_> = self.tags.iter().map(|tag| ("tag", tag.clone())).collect();
        if self.health == Wanted::Passing {
            parameters.push(("passing", "true".to_owned()));
        }
        parameters
    }

    /// Whether an instance of this health is wanted; the agent filters `?passing` only.
    pub(crate) fn wants(&self, status: Status) -> bool {
        match self.health {
            Wanted::Passing => status == Status::Passing,
            Wanted::NotCritical => status != Status::Critical,
            Wanted::Any => true,
        }
    }
}

const WAIT: Duration = Duration::from_secs(55);
/// Zero would mean Consul's own default of 5 min.
const MIN_WAIT: Duration = Duration::from_millis(10);
const MAX_WAIT: Duration = Duration::from_secs(600);
