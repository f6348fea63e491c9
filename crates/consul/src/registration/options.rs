use std::{collections::BTreeMap, time::Duration};

use tower_sd_core::{LeaseTtl, Result, duration};

use crate::{BACKEND, Check, client::request::TaggedAddress, error};

/// Consul's own options of registrations; see
/// [`Consul::with_options`](crate::Consul::with_options).
///
/// ```
/// use tower_sd::consul::{Check, Consul, ConsulConfig, RegistrationOptions};
///
/// let consul = Consul::new(ConsulConfig::new("127.0.0.1:8500"))?;
/// let checked = RegistrationOptions::new().check(Check::tcp("10.0.0.7:8081"));
/// let consul = consul.with_options(checked);
/// # Ok::<(), tower_sd::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RegistrationOptions {
    pub(super) has_ttl: bool,
    pub(super) checks: Vec<Check>,
    pub(super) deregister_critical_after: Option<Duration>,
    pub(super) warning_weight: Option<u16>,
    pub(super) tagged_addresses: BTreeMap<String, TaggedAddress>,
    pub(super) enable_tag_override: bool,
}

/// Settings of one registration.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) ttl: Option<Duration>,
    pub(super) options: RegistrationOptions,
}

impl RegistrationOptions {
    /// Creates the defaults: a heartbeat within the TTL, and no other check.
    pub fn new() -> Self {
        Self {
            has_ttl: true,
            checks: Vec::new(),
            deregister_critical_after: Some(DEREGISTER_CRITICAL_AFTER),
            warning_weight: None,
            tagged_addresses: BTreeMap::new(),
            enable_tag_override: false,
        }
    }

    /// Sends no heartbeat.
    ///
    /// The checks that the agent runs alone decide on the health of the instance.
    ///
    /// The entry is verified every 15 s.
    pub fn without_ttl(self) -> Self {
        Self { has_ttl: false, ..self }
    }

    /// Adds a check that the agent runs.
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Has Consul remove an entry that has been critical for this long.
    ///
    /// At least 60 s; `None`: never.
    ///
    /// Defaults to 10 min: long enough to inspect it, and an instance that is alive registers
    /// again. Consul raises less than 60 s silently and checks every 30 s, so less is an error.
    pub fn deregister_critical_after(self, after: Option<Duration>) -> Self {
        Self { deregister_critical_after: after, ..self }
    }

    /// Sets the weight of an instance while it is warning, from 1.
    ///
    /// Defaults to its weight while it passes.
    pub fn warning_weight(self, weight: u16) -> Self {
        Self { warning_weight: Some(weight.max(1)), ..self }
    }

    /// Adds an address of the instance under a tag: `wan` for other datacenters.
    pub fn tagged_address(
        mut self,
        tag: impl Into<String>,
        host: impl Into<String>,
        port: u16,
    ) -> Self {
        let address = TaggedAddress { address: host.into(), port };
        self.tagged_addresses.insert(tag.into(), address);
        self
    }

    /// Lets other programs change the tags in the catalogue (`EnableTagOverride`).
    ///
    /// Defaults to false: the agent restores those of the registration.
    pub fn enable_tag_override(self, enabled: bool) -> Self {
        Self { enable_tag_override: enabled, ..self }
    }
}

impl Default for RegistrationOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl Settings {
    pub(super) fn validate(&self) -> Result<()> {
        if let Some(ttl) = self.ttl {
            duration::check_ttl(BACKEND, "register", ttl)?;
        }
        match self.options.deregister_critical_after {
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

    pub(super) fn lease_ttl(&self) -> LeaseTtl {
        match self.ttl {
            Some(ttl) => LeaseTtl::new(ttl),
            None => LeaseTtl::unlimited(VERIFY_EVERY),
        }
    }
}

const DEREGISTER_CRITICAL_AFTER: Duration = Duration::from_secs(600);
/// Consul's own, which cannot be configured (`CheckDeregisterIntervalMin`).
const MIN_DEREGISTER: Duration = Duration::from_secs(60);
/// Without a quorum an agent takes 7 to 14 s to accept a registration.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the entry itself is read, beside the heartbeats or instead of them.
pub(super) const VERIFY_EVERY: Duration = Duration::from_secs(15);
