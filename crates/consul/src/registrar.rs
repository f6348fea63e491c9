//! Registers with an agent, and keeps the TTL check alive.

mod announcer;
mod leftovers;

use std::{collections::BTreeMap, time::Duration};

use tower_sd_core::{
    AnnounceConfig, LeaseTtl, Registrar, Registration, RegistrationHandle, Result, TaskGroup,
    announce, async_trait,
};

use self::announcer::ConsulAnnouncer;
use crate::{
    BACKEND, Check, ConsulClient,
    client::{error, request::TaggedAddress},
    config::check_ttl,
    mapping,
};

/// Registers services with an agent, each with a TTL check that shows their health.
///
/// The settings are those of all its registrations; a clone may have others, and shares the tasks.
///
/// An instance with the status [`Draining`](tower_sd_core::InstanceStatus::Draining), given at registration or by an update of
/// its handle, is in maintenance: it leaves `?passing` and DNS immediately, and stays registered.
///
/// # Drop
///
/// Handles keep what they need; use [`close`](Self::close) to wait for registrations whose handles were dropped.
#[derive(Clone, Debug)]
pub struct ConsulRegistrar {
    client: ConsulClient,
    settings: Settings,
    tasks: TaskGroup,
}

#[derive(Clone, Debug)]
struct Settings {
    ttl: Option<Duration>,
    checks: Vec<Check>,
    deregister_critical_after: Option<Duration>,
    warning_weight: Option<u16>,
    tagged_addresses: BTreeMap<String, TaggedAddress>,
    enable_tag_override: bool,
}

impl ConsulRegistrar {
    /// A registrar with the defaults: the TTL of the client's [configuration](crate::ConsulConfig::ttl), 15 s unless
    /// given, renewed three times in it; an entry that has been critical for 10 min is
    /// removed by Consul.
    #[must_use]
    pub fn new(client: &ConsulClient) -> Self {
        let settings = Settings {
            ttl: Some(client.config().ttl),
            checks: Vec::new(),
            deregister_critical_after: Some(DEREGISTER_CRITICAL_AFTER),
            warning_weight: None,
            tagged_addresses: BTreeMap::new(),
            enable_tag_override: false,
        };
        Self { client: client.clone(), settings, tasks: TaskGroup::new() }
    }

    /// How long the agent believes a heartbeat, from 1 s to 24 h; it is sent three times in that time. Default 15 s.
    ///
    /// The agent turns the check critical when it has heard nothing for so long, and followers drop the instance.
    /// [`register`](Registrar::register) refuses a TTL outside of these bounds.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = Some(ttl);
        self
    }

    /// Sends no heartbeat: what the agent checks itself is all that is known of the instance. That the entry is still
    /// there is verified every 15 s.
    #[must_use]
    pub fn without_ttl(mut self) -> Self {
        self.settings.ttl = None;
        self
    }

    /// Has the agent run this check too; called again, several.
    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.settings.checks.push(check);
        self
    }

    /// Has Consul remove an entry that has been critical for this long, at least 60 s; `None`: never. Default 10 min:
    /// long enough to look at what is critical, and whoever lives registers again.
    ///
    /// Consul raises less than 60 s silently and looks every 30 s, so [`register`](Registrar::register) refuses less.
    #[must_use]
    pub fn deregister_critical_after(mut self, after: Option<Duration>) -> Self {
        self.settings.deregister_critical_after = after;
        self
    }

    /// The weight of an instance while it is warning, from 1. Default: the same as when it passes.
    #[must_use]
    pub fn warning_weight(mut self, weight: u16) -> Self {
        self.settings.warning_weight = Some(weight.max(1));
        self
    }

    /// Registers another address of the instance under a tag: `wan` for other datacenters.
    #[must_use]
    pub fn tagged_address(
        mut self,
        tag: impl Into<String>,
        host: impl Into<String>,
        port: u16,
    ) -> Self {
        let address = TaggedAddress { address: host.into(), port };
        self.settings.tagged_addresses.insert(tag.into(), address);
        self
    }

    /// Lets other programs change the tags in the catalogue (`EnableTagOverride`). Defaults to false:
    /// the agent restores those of the registration.
    #[must_use]
    pub fn enable_tag_override(mut self, enabled: bool) -> Self {
        self.settings.enable_tag_override = enabled;
        self
    }

    /// Withdraws all registrations, and waits for that.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, it goes on in the background.
    pub async fn close(&self) {
        self.tasks.close().await;
    }
}

#[async_trait]
impl Registrar for ConsulRegistrar {
    async fn register(&self, registration: Registration) -> Result<RegistrationHandle> {
        let (service, instance) = (registration.service(), registration.instance());
        // Refuses a registration that no agent would take, before a task is started.
        mapping::registration(service, instance, NO_INCARNATION)?;
        self.settings.validate().map_err(|error| error.with_instance(instance.id().clone()))?;
        let service_id = mapping::service_id(service, instance.id().as_str());
        let announcer =
            ConsulAnnouncer::new(self.client.clone(), self.settings.clone(), service_id);
        let mut config = AnnounceConfig::new(BACKEND);
        config.call_timeout = CALL_TIMEOUT + CALL_TIMEOUT;
        announce(announcer, registration, config, &self.tasks).await
    }

    async fn close(&self) {
        Self::close(self).await;
    }
}

impl Settings {
    fn validate(&self) -> Result<()> {
        if let Some(ttl) = self.ttl {
            check_ttl(ttl, "register")?;
        }
        match self.deregister_critical_after {
            Some(after) if after < MIN_DEREGISTER => Err(error::config(
                "register",
                format!(
                    "deregister_critical_after = {after:?}: Consul raises less than 60 s silently, and looks every 30 s \
                     only; give 60 s or more"
                ),
            )),
            _ => Ok(()),
        }
    }

    fn lease_ttl(&self) -> LeaseTtl {
        match self.ttl {
            Some(ttl) => LeaseTtl::new(ttl),
            None => LeaseTtl::unlimited(VERIFY_EVERY),
        }
    }
}

/// For a check of the limits, which counts it.
const NO_INCARNATION: &str = "";
const DEREGISTER_CRITICAL_AFTER: Duration = Duration::from_secs(600);
/// Consul's own, which cannot be configured (`CheckDeregisterIntervalMin`).
const MIN_DEREGISTER: Duration = Duration::from_secs(60);
/// Without a quorum an agent takes 7 to 14 s to accept a registration.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the entry itself is read, beside the heartbeats or instead of them.
const VERIFY_EVERY: Duration = Duration::from_secs(15);
