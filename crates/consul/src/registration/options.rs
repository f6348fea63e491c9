use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use tower_sd_core::{LeaseTtl, Result, duration};

use super::check::Check;
use crate::{BACKEND, client::request::TaggedAddress, error};

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
///
/// In a configuration they have the names of the setters, but `checks` is a list, and
/// `tagged_addresses` has the tags as its keys:
///
/// ```
/// # use tower_sd::consul::RegistrationOptions;
/// let options: RegistrationOptions = serde_json::from_str(
///     r#"{
///         "without_ttl": true,
///         "checks": [{"http": "http://10.0.0.7:8081/health", "interval": "5s"}],
///         "deregister_critical_after": "never",
///         "warning_weight": 1,
///         "tagged_addresses": {"wan": {"host": "203.0.113.7", "port": 80}},
///         "enable_tag_override": true
///     }"#,
/// )?;
/// # drop(options);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[must_use]
#[serde(default, deny_unknown_fields)]
pub struct RegistrationOptions {
    pub(super) without_ttl: bool,
    pub(super) checks: Vec<Check>,
    #[serde(deserialize_with = "duration::deserialize_option")]
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
            without_ttl: false,
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
        Self { without_ttl: true, ..self }
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

    /// Sets the weight of an instance while it is warning.
    ///
    /// 0 counts as 1. Defaults to its weight while it passes.
    pub fn warning_weight(self, weight: u16) -> Self {
        Self { warning_weight: Some(weight), ..self }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> serde_json::Result<RegistrationOptions> {
        serde_json::from_str(json)
    }

    #[test]
    fn configuration_has_the_options_of_the_code() {
        let text = r#"{"without_ttl": true, "deregister_critical_after": "never",
            "warning_weight": 2,
            "tagged_addresses": {"wan": {"host": "203.0.113.7", "port": 80}},
            "enable_tag_override": true, "checks": [
                {"http": "http://h/", "method": "HEAD", "skip_verify": true, "interval": "1ms"},
                {"tcp": "h:1", "timeout": "1s", "successes_before_passing": 2},
                {"grpc": "h:2/s", "grpc_tls": true, "failures_before_critical": 3},
                {"alias": "web-1"}]}"#;
        let second = Duration::from_secs(1);
        let expected = RegistrationOptions::new()
            .without_ttl()
            .deregister_critical_after(None)
            .warning_weight(2)
            .tagged_address("wan", "203.0.113.7", 80)
            .enable_tag_override(true)
            .check(Check::http("http://h/").method("HEAD").skip_verify().interval(second))
            .check(Check::tcp("h:1").timeout(second).successes_before_passing(2))
            .check(Check::grpc("h:2/s").grpc_tls().failures_before_critical(3))
            .check(Check::alias("web-1"));
        assert_eq!(parse(text).expect("options"), expected);
        assert_eq!(parse("{}").expect("defaults"), RegistrationOptions::new());
    }

    #[test]
    fn errors_of_a_configuration_name_the_field() {
        for (text, field) in [
            (r#"{"waring_weight": 1}"#, "waring_weight"),
            (r#"{"checks": [{"tpc": "h:1"}]}"#, "tpc"),
            (r#"{"checks": [{"interval": "5s"}]}"#, "one of http, tcp, grpc and alias"),
            (r#"{"checks": [{"tcp": "h:1", "alias": "x"}]}"#, "one of http, tcp, grpc and alias"),
            (r#"{"checks": [{"tcp": "h:1", "method": "GET"}]}"#, "method"),
            (r#"{"checks": [{"grpc": "h:1", "skip_verify": true}]}"#, "skip_verify"),
            (r#"{"checks": [{"http": "http://h/", "grpc_tls": true}]}"#, "grpc_tls"),
            (r#"{"tagged_addresses": {"wan": {"host": "h", "prt": 1}}}"#, "prt"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(field), "{error}");
        }
        let options = parse(r#"{"deregister_critical_after": "30s"}"#).expect("a time");
        let error = Settings { ttl: None, options }.validate().expect_err("less than 60 s");
        assert!(error.to_string().contains("deregister_critical_after = 30s"), "{error}");
    }
}
