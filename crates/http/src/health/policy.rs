use std::time::Duration;

use http::uri::PathAndQuery;
use tower_sd_balance::{Error, ErrorKind, Result};

/// How the endpoints of an [`HttpFactory`](crate::HttpFactory) are checked.
///
/// A check is a GET on a connection of its own; a status of 2xx passes. Redirects are not followed.
///
/// ```
/// use std::time::Duration;
/// use tower_sd::http::{HealthPolicy, HttpFactory};
///
/// let health = HealthPolicy::new("/health")?.interval(Duration::from_secs(2));
/// let factory: HttpFactory<String> = HttpFactory::new().health(health);
/// # Ok::<(), tower_sd::Error>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct HealthPolicy {
    pub(super) path: PathAndQuery,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) failures: u32,
    pub(super) successes: u32,
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
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            failures: 3,
            successes: 2,
        })
    }

    /// Sets the time between two checks; each varies by a fifth.
    ///
    /// The first comes at a random moment of it. Defaults to 5 s: with three failures an instance
    /// that refuses is left out within 18 s, and one that hangs within 21 s.
    pub fn interval(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// Bounds one check, its connect included. Defaults to 1 s.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sets how many failures eject an endpoint, and how many passes end that.
    ///
    /// So many in a row. Defaults to 3 and 2: a lost packet ejects none.
    pub fn thresholds(mut self, failures: u32, successes: u32) -> Self {
        (self.failures, self.successes) = (failures, successes);
        self
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
        for path in ["health", "", "http://a/health", "/a b"] {
            assert!(HealthPolicy::new(path).is_err(), "{path:?}");
        }
    }
}
