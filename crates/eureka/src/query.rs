use std::time::Duration;

use serde::Deserialize;
use tower_sd_core::{InstanceStatus, duration};

/// Which instances to follow, and how often they are read.
///
/// By default the instances of an application that are `UP`, at their host names, read every 30 s.
///
/// ```
/// use tower_sd::eureka::Query;
///
/// let query = Query::vip("payments").secure();
/// # drop(query);
/// ```
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[must_use]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    #[serde(skip)]
    pub(crate) name: String,
    pub(crate) lookup: Lookup,
    pub(crate) secure: bool,
    pub(crate) prefer_ip: bool,
    pub(crate) any_status: bool,
    #[serde(deserialize_with = "duration::deserialize")]
    pub(crate) poll_interval: Duration,
}

/// What the name of a followed service is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum Lookup {
    /// An application (`apps/{APP}`), which servers write in capitals.
    #[default]
    App,
    /// A virtual address (`vips/{vip}`); applications may share one.
    Vip,
    /// A secure virtual address (`svips/{vip}`).
    SecureVip,
}

impl Query {
    /// Follows an application.
    pub fn new(app: impl Into<String>) -> Self {
        Self {
            name: app.into(),
            lookup: Lookup::App,
            secure: false,
            prefer_ip: false,
            any_status: false,
            poll_interval: POLL_INTERVAL,
        }
    }

    /// Follows a virtual address.
    pub fn vip(vip: impl Into<String>) -> Self {
        Self { lookup: Lookup::Vip, ..Self::new(vip) }
    }

    /// Follows a secure virtual address.
    pub fn secure_vip(vip: impl Into<String>) -> Self {
        Self { lookup: Lookup::SecureVip, ..Self::new(vip) }
    }

    /// Uses secure ports only.
    ///
    /// An instance without an enabled secure port is left out and counted. By default the secure
    /// port is used where it is the only enabled one. An instance at its secure port has the scheme
    /// `https`.
    pub fn secure(self) -> Self {
        Self { secure: true, ..self }
    }

    /// Uses the IP address of an instance instead of its host name.
    ///
    /// Defaults to the host name, as Spring's and Netflix's clients; go-kit's uses the address.
    pub fn prefer_ip(self) -> Self {
        Self { prefer_ip: true, ..self }
    }

    /// Shows instances that are not `UP` too.
    pub fn any_status(self) -> Self {
        Self { any_status: true, ..self }
    }

    /// Sets the interval of reads, within 10 %.
    ///
    /// Defaults to 30 s, the pace at which servers refresh their response cache. It is at least
    /// 5 s, or the interval of [`EurekaConfig::query`](crate::EurekaConfig::query) if shorter; it
    /// is at most 1 h. A configuration with less than 100 ms, or more than 1 h, is refused.
    pub fn poll_interval(self, interval: Duration) -> Self {
        Self { poll_interval: interval, ..self }
    }

    /// Only `UP` can be routed to.
    pub(crate) fn wants(&self, status: InstanceStatus) -> bool {
        self.any_status || status.accepts_requests()
    }
}

impl Default for Query {
    fn default() -> Self {
        Self::new("")
    }
}

impl<T: Into<String>> From<T> for Query {
    fn from(app: T) -> Self {
        Self::new(app)
    }
}

const POLL_INTERVAL: Duration = Duration::from_secs(30);
