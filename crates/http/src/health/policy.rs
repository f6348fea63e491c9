use std::time::Duration;

use http::{HeaderValue, uri::PathAndQuery};
use serde::Deserialize;
use tower_sd_core::{Error, ErrorKind, Result, duration};

use super::shared::Shared;

/// How the endpoints of an [`HttpFactory`](crate::HttpFactory) are checked.
///
/// A check is a GET on a connection of its own; a status of 2xx passes. Redirects are not followed.
///
/// Clones are the same checks: each instance is checked once for all clients of a process that are
/// built with clones of one policy, by one of them. Equal policies that are made apart check apart,
/// as does a clone whose settings were changed.
///
/// ```
/// use std::time::Duration;
/// use tower_sd::http::{HealthPolicy, HttpFactory};
///
/// let health = HealthPolicy::new("/health")?.interval(Duration::from_secs(2));
/// let factory: HttpFactory<String> = HttpFactory::new().health(health);
/// # Ok::<(), tower_sd::Error>(())
/// ```
///
/// It can be read from a configuration, where all but `path` may be missing:
///
/// ```
/// # use tower_sd::http::HealthPolicy;
/// let health: HealthPolicy = serde_json::from_str(r#"{"path": "/health", "interval": "2s"}"#)?;
/// # drop(health);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[must_use]
#[serde(try_from = "Settings")]
pub struct HealthPolicy {
    pub(super) path: PathAndQuery,
    pub(super) host: Option<HeaderValue>,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) failures: u32,
    pub(super) successes: u32,
    pub(super) shared: Shared,
}

impl HealthPolicy {
    /// Checks `path`, with the defaults that the setters name.
    ///
    /// # Errors
    ///
    /// `path` is no path that begins with a slash.
    pub fn new(path: &str) -> Result<Self> {
        let parsed = PathAndQuery::try_from(path).ok().filter(|_| path.starts_with('/'));
        let path = parsed.ok_or_else(|| refused(format!("{path:?} is no path")))?;
        Ok(Self {
            path,
            host: None,
            interval: interval(),
            timeout: timeout(),
            failures: failures(),
            successes: successes(),
            shared: Shared::default(),
        })
    }

    /// Sets the `Host` of the checks, for instances behind virtual hosts.
    ///
    /// Requests name the service by the authority of their URI; a check has none. Defaults to the
    /// instance's `host:port`.
    ///
    /// # Errors
    ///
    /// `host` cannot be the value of a header.
    pub fn host(self, host: &str) -> Result<Self> {
        let value = HeaderValue::from_str(host)
            .map_err(|error| refused(format!("{host:?} is no host")).with_source(error))?;
        Ok(Self { host: Some(value), shared: Shared::default(), ..self })
    }

    /// Sets the time between two checks; each varies by a fifth.
    ///
    /// The first comes at a random moment of it. Defaults to 5 s: with three failures an instance
    /// that refuses is left out within 18 s, and one that hangs within 21 s.
    pub fn interval(self, interval: Duration) -> Self {
        Self { interval, shared: Shared::default(), ..self }
    }

    /// Bounds one check, its connect included. Defaults to 1 s.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, shared: Shared::default(), ..self }
    }

    /// Sets how many failures eject an endpoint, and how many passes end that.
    ///
    /// So many in a row. Defaults to 3 and 2: a lost packet ejects none.
    pub fn thresholds(self, failures: u32, successes: u32) -> Self {
        Self { failures, successes, shared: Shared::default(), ..self }
    }

    /// Whether its settings agree.
    ///
    /// # Errors
    ///
    /// A timeout above the interval, or a threshold of 0.
    pub fn check(&self) -> Result<()> {
        let Self { interval, timeout, failures, successes, .. } = self;
        if *failures == 0 || *successes == 0 {
            let thresholds = format!("thresholds of {failures} failures and {successes} passes");
            return Err(refused(format!("{thresholds}: each must be 1 at least")));
        }
        match timeout > interval {
            true => {
                Err(refused(format!("timeout of {timeout:?} is above interval of {interval:?}")))
            }
            false => Ok(()),
        }
    }
}

/// Its form in a configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    path: String,
    #[serde(default)]
    host: Option<String>,
    #[serde(default = "interval", deserialize_with = "duration::deserialize")]
    interval: Duration,
    #[serde(default = "timeout", deserialize_with = "duration::deserialize")]
    timeout: Duration,
    #[serde(default = "failures")]
    failures: u32,
    #[serde(default = "successes")]
    successes: u32,
}

impl TryFrom<Settings> for HealthPolicy {
    type Error = Error;

    fn try_from(settings: Settings) -> Result<Self> {
        let Settings { path, host, interval, timeout, failures, successes } = settings;
        let policy = Self { interval, timeout, failures, successes, ..Self::new(&path)? };
        policy.check()?;
        match host {
            Some(host) => policy.host(&host),
            None => Ok(policy),
        }
    }
}

fn interval() -> Duration {
    Duration::from_secs(5)
}

fn timeout() -> Duration {
    Duration::from_secs(1)
}

fn failures() -> u32 {
    3
}

fn successes() -> u32 {
    2
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Config, "http", "health").with_message(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradicting_settings_are_refused_with_both_values() {
        let policy = HealthPolicy::new("/health").expect("a path");
        assert!(policy.check().is_ok());
        let long = policy.clone().timeout(Duration::from_secs(6)).check().expect_err("refused");
        assert!(long.to_string().contains("timeout of 6s is above interval of 5s"), "{long}");
        let none = policy.thresholds(0, 2).check().expect_err("refused");
        assert!(none.to_string().contains("thresholds of 0 failures and 2 passes"), "{none}");
        assert!(HealthPolicy::new("/").expect("a path").host("a\nb").is_err());
        for path in ["health", "", "http://a/health", "/a b"] {
            assert!(HealthPolicy::new(path).is_err(), "{path:?}");
        }
    }
}
