use std::{fmt, sync::Arc, time::Duration};

use crate::{HealthCheck, Instance};

/// An instance to register, and the settings of its registration.
#[derive(Clone)]
#[must_use]
pub struct Registration {
    pub(crate) service: String,
    pub(crate) instance: Instance,
    pub(crate) health: Option<Arc<dyn HealthCheck>>,
    pub(crate) health_interval: Option<Duration>,
    ttl: Option<Duration>,
    /// For the first registration; in the background, attempts are frequent until then.
    pub(crate) first_timeout: Duration,
    pub(crate) in_background: bool,
    pub(crate) deregister_timeout: Duration,
    pub(crate) reclaim: bool,
}

impl Registration {
    /// Creates a registration of `instance` in `service`, without a health check.
    pub fn new(service: impl Into<String>, instance: impl Into<Instance>) -> Self {
        Self {
            service: service.into(),
            instance: instance.into(),
            health: None,
            health_interval: None,
            ttl: None,
            first_timeout: FIRST_TIMEOUT,
            in_background: false,
            deregister_timeout: DEREGISTER_TIMEOUT,
            reclaim: false,
        }
    }

    /// Runs this check before every renewal.
    ///
    /// The registry shows the result where it has states of its own. From others the instance is
    /// withdrawn while the check is critical. A check that takes longer than
    /// [`AnnounceConfig::health_timeout`](crate::AnnounceConfig::health_timeout), than a third of
    /// the registry's TTL, or at first than half of [`fail_fast`](Self::fail_fast)'s timeout,
    /// counts as critical.
    pub fn health(self, check: impl HealthCheck) -> Self {
        Self { health: Some(Arc::new(check)), ..self }
    }

    /// Runs the check at this interval, from 10 ms up to the interval of renewals.
    ///
    /// Defaults to the interval of renewals, a third of the TTL.
    pub fn health_interval(self, interval: Duration) -> Self {
        Self { health_interval: Some(interval.max(MIN_HEALTH_INTERVAL)), ..self }
    }

    /// Sets the time after which the registry drops the entry unless it is renewed.
    ///
    /// It is renewed three times in that time. Defaults to [`RegistryConfig::ttl`], or else 15 s,
    /// in Eureka 90 s. Consul, etcd and Eureka accept 1 s to 24 h; in ZooKeeper the session timeout
    /// holds in its place.
    ///
    /// [`RegistryConfig::ttl`]: crate::RegistryConfig::ttl
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    /// Returns an error unless the first registration succeeds within `timeout`.
    ///
    /// Defaults to 5 s. An error that no repetition can mend, such as a wrong token, is returned
    /// immediately.
    pub fn fail_fast(self, timeout: Duration) -> Self {
        Self { first_timeout: timeout, in_background: false, ..self }
    }

    /// Returns from `register` immediately, and registers in the background.
    ///
    /// The server then starts whatever the state of the registry. Attempts are frequent for the
    /// timeout of [`fail_fast`](Self::fail_fast), and become rare after it.
    pub fn retry_in_background(self) -> Self {
        Self { in_background: true, ..self }
    }

    /// Bounds the time of the withdrawal. Defaults to 5 s.
    ///
    /// At most one day; see
    /// [`RegistrationHandle::deregister`](crate::RegistrationHandle::deregister). The default is
    /// half of the 10 s that most supervisors leave between SIGTERM and SIGKILL.
    pub fn deregister_timeout(self, timeout: Duration) -> Self {
        Self { deregister_timeout: timeout.min(MAX_DEREGISTER_TIMEOUT), ..self }
    }

    /// Takes the entry back, with backoff, when another registration has taken it over.
    ///
    /// Defaults to false: of two processes with one id, usually the younger one is right. With true
    /// for both, they replace each other's entry for as long as both run.
    pub fn reclaim(self, reclaim: bool) -> Self {
        Self { reclaim, ..self }
    }

    /// Returns the bound of [`fail_fast`](Self::fail_fast); `None` in the background.
    pub fn fail_fast_timeout(&self) -> Option<Duration> {
        (!self.in_background).then_some(self.first_timeout)
    }

    /// Returns the TTL: the one set here, else the registry's.
    pub fn lease_ttl(&self) -> Duration {
        self.ttl.unwrap_or(TTL)
    }

    /// Sets the TTL unless one is set.
    pub(crate) fn or_ttl(self, ttl: Option<Duration>) -> Self {
        Self { ttl: self.ttl.or(ttl), ..self }
    }

    /// Returns the service.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Returns the instance.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("service", &self.service)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// The default of all registries: three renewals 5 s apart, so that a registry that restarts is
/// back before the entry expires, and a crashed server is gone soon enough.
const TTL: Duration = Duration::from_secs(15);
/// Long enough for a leader election, short enough for a deployment to notice.
const FIRST_TIMEOUT: Duration = Duration::from_secs(5);
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_DEREGISTER_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
const MIN_HEALTH_INTERVAL: Duration = Duration::from_millis(10);
