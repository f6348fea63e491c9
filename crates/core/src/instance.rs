use std::{cmp::Ordering, collections::BTreeMap, fmt, net::SocketAddr, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Error, ErrorKind, InstanceId, InstanceStatus, Result, clipped, url::without_user};

/// One reachable copy of a service.
///
/// A snapshot of 10 000 of them is 10 000 pointers: `Clone` is one `Arc`, and equality compares the
/// pointer first, then the content. `Display` prints `host:port`, with an IPv6 host in brackets, so
/// that it can stand in a URL.
///
/// ```
/// use tower_sd::Instance;
///
/// let instance = Instance::new("::1", 8080).with_id("arithmetic-1").with_weight(50);
/// assert_eq!(instance.to_string(), "[::1]:8080");
/// assert_eq!(instance.weight(), 50);
/// ```
///
/// As JSON it needs a host and a port; what is absent has the default of its setter.
///
/// ```
/// # use tower_sd::discovery::InstanceStatus;
/// # use tower_sd::Instance;
/// let json = r#"{
///     "id": "arithmetic-1", "scheme": "https", "host": "10.0.0.7", "port": 8443, "weight": 5,
///     "priority": 0, "zone": "eu-1a", "tags": ["v2"], "metadata": {"shard": "3"},
///     "status": "passing", "started_at_ms": 1700000000000
/// }"#;
/// let instance: Instance = serde_json::from_str(json)?;
/// assert_eq!((instance.zone(), instance.status()), (Some("eu-1a"), InstanceStatus::Passing));
/// let least: Instance = serde_json::from_str(r#"{"host": "10.0.0.8", "port": 80}"#)?;
/// assert_eq!(least, Instance::new("10.0.0.8", 80));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
#[must_use]
pub struct Instance(Arc<Inner>);

#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
struct Inner {
    /// Empty: that of [`Instance::new`].
    #[serde(default = "no_id")]
    id: InstanceId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scheme: Option<String>,
    host: String,
    port: u16,
    #[serde(default = "default_weight")]
    weight: u32,
    #[serde(default)]
    priority: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    status: InstanceStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at_ms: Option<u64>,
    /// The values that a registry has for it and that make no sense.
    #[serde(skip)]
    ignored: String,
}

impl Instance {
    /// Creates an instance at `host` and `port`, with the id `host:port`.
    ///
    /// The host is a name, or an IP address without brackets. The host `unix:/path` is a unix
    /// socket, whose port has no meaning.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        Self(Arc::new(Inner {
            id: InstanceId::from(host_port(&host, port)),
            scheme: None,
            host,
            port,
            weight: default_weight(),
            priority: 0,
            zone: None,
            tags: Vec::new(),
            metadata: BTreeMap::new(),
            status: InstanceStatus::default(),
            started_at_ms: None,
            ignored: String::new(),
        }))
    }

    /// Sets the id, which must be unique in its service. Defaults to `host:port`.
    ///
    /// An id that stays the same across restarts makes the restarted process the same instance.
    pub fn with_id(self, id: impl Into<InstanceId>) -> Self {
        self.edit(|inner| inner.id = id.into())
    }

    /// Sets the scheme, for example `"http"`, `"https"` or `"grpc"`.
    pub fn with_scheme(self, scheme: impl Into<String>) -> Self {
        self.edit(|inner| inner.scheme = Some(scheme.into()))
    }

    /// Sets the share of traffic relative to the others. Defaults to 1; 0 is none.
    pub fn with_weight(self, weight: u32) -> Self {
        self.edit(|inner| inner.weight = weight)
    }

    /// Sets its priority: lower is better, 0 (the default) is best. RFC 2782's meaning.
    pub fn with_priority(self, priority: u32) -> Self {
        self.edit(|inner| inner.priority = priority)
    }

    /// Sets the zone it runs in.
    pub fn with_zone(self, zone: impl Into<String>) -> Self {
        self.edit(|inner| inner.zone = Some(zone.into()))
    }

    /// Replaces its tags; they are kept sorted, each once.
    pub fn with_tags<T: Into<String>>(self, tags: impl IntoIterator<Item = T>) -> Self {
        let mut tags: Vec<String> = tags.into_iter().map(Into::into).collect();
        tags.sort();
        tags.dedup();
        self.edit(|inner| inner.tags = tags)
    }

    /// Adds or replaces one entry of its metadata.
    pub fn with_metadata(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.edit(|inner| {
            inner.metadata.insert(key.into(), value.into());
        })
    }

    /// Sets its status.
    pub fn with_status(self, status: InstanceStatus) -> Self {
        self.edit(|inner| inner.status = status)
    }

    /// Sets the time of its start, in milliseconds since the Unix epoch.
    pub fn with_started_at_ms(self, started_at_ms: u64) -> Self {
        self.edit(|inner| inner.started_at_ms = Some(started_at_ms))
    }

    /// Sets its `priority`, `started_at_ms`, `weight` or `zone` from text.
    ///
    /// For backends. A text that is empty or makes no sense is ignored, and a
    /// [`Publisher`](crate::Publisher) logs it once.
    pub fn with_text(self, name: &str, text: &str) -> Self {
        let number: Option<u64> = text.parse().ok();
        let small = number.and_then(|number| u32::try_from(number).ok());
        self.edit(|inner| match (name, small, number) {
            ("priority", Some(priority), _) => inner.priority = priority,
            ("started_at_ms", _, Some(at_ms)) => inner.started_at_ms = Some(at_ms),
            ("weight", Some(weight), _) => inner.weight = weight,
            ("zone", ..) if !text.is_empty() => inner.zone = Some(text.to_owned()),
            _ => inner.ignored += &format!("{name}={:?} ", clipped(text)),
        })
    }

    /// Its name inside its service.
    pub fn id(&self) -> &InstanceId {
        &self.0.id
    }

    /// Returns its scheme, if it has one.
    pub fn scheme(&self) -> Option<&str> {
        self.0.scheme.as_deref()
    }

    /// A host name or an IP address, never in brackets.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Returns its share of the traffic relative to the others; 0 means none.
    pub fn weight(&self) -> u32 {
        self.0.weight
    }

    /// Its priority; lower is better.
    pub fn priority(&self) -> u32 {
        self.0.priority
    }

    /// Where it runs, if known.
    pub fn zone(&self) -> Option<&str> {
        self.0.zone.as_deref()
    }

    /// Its tags, sorted.
    pub fn tags(&self) -> &[String] {
        &self.0.tags
    }

    /// Its metadata.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.0.metadata
    }

    /// Returns its fitness.
    pub fn status(&self) -> InstanceStatus {
        self.0.status
    }

    /// Returns the time of its start, in milliseconds since the Unix epoch.
    pub fn started_at_ms(&self) -> Option<u64> {
        self.0.started_at_ms
    }

    /// Whether both are the same allocation, which is cheaper than equality.
    pub fn ptr_eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether requests go to the same place: scheme, host and port are equal.
    pub fn same_address(&self, other: &Self) -> bool {
        let (a, b) = (&*self.0, &*other.0);
        (a.port, &a.host, &a.scheme) == (b.port, &b.host, &b.scheme)
    }

    /// Returns whether it accepts requests.
    ///
    /// Its status is `Passing` or `Warning`, and its weight above 0.
    pub fn accepts_requests(&self) -> bool {
        self.0.status.accepts_requests() && self.0.weight > 0
    }

    /// The values of [`with_text`](Self::with_text) that make no sense.
    pub(crate) fn ignored(&self) -> &str {
        self.0.ignored.trim_end()
    }

    /// A total order of entries: equal ones have equal content.
    pub(crate) fn content_order(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl PartialEq for Instance {
    fn eq(&self, other: &Self) -> bool {
        self.ptr_eq(other) || self.0 == other.0
    }
}

impl Eq for Instance {}

impl From<SocketAddr> for Instance {
    fn from(address: SocketAddr) -> Self {
        Self::new(address.ip().to_string(), address.port())
    }
}

/// Parses `host:port`, an IPv6 address in brackets.
impl FromStr for Instance {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = bare.is_some() || !(host.is_empty() || host.contains(':'));
        match port.parse() {
            Ok(port @ 1..) if is_host => Ok(Self::new(bare.unwrap_or(host), port)),
            _ => Err(Error::new(ErrorKind::Config, "core", "parse")
                .with_message(format!("{:?} is not host:port", without_user(text)))),
        }
    }
}

impl<'de> Deserialize<'de> for Instance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut inner = Inner::deserialize(deserializer)?;
        if inner.id == no_id() {
            inner.id = host_port(&inner.host, inner.port).into();
        }
        let tags = std::mem::take(&mut inner.tags);
        Ok(Self(Arc::new(inner)).with_tags(tags))
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&host_port(&self.0.host, self.0.port))
    }
}

fn host_port(host: &str, port: u16) -> String {
    match host.contains(':') {
        true if host.starts_with("unix:") => host.to_owned(),
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

fn no_id() -> InstanceId {
    InstanceId::from("")
}

const fn default_weight() -> u32 {
    DEFAULT_WEIGHT
}

/// The default of Consul and of most registries' clients: an entry of another program that names no
/// weight has the same share.
const DEFAULT_WEIGHT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_is_shown_in_brackets_and_round_trips() {
        let instance = Instance::new("::1", 80);
        assert_eq!(instance.to_string(), "[::1]:80");
        let json = serde_json::to_string(&instance).expect("serialises");
        let back: Instance = serde_json::from_str(&json).expect("deserialises");
        assert_eq!(back, instance);
        assert_eq!(back.host(), "::1");
    }

    #[test]
    fn everything_survives_json() {
        let instance = Instance::new("a.example", 8080)
            .with_id("a-1")
            .with_scheme("https")
            .with_weight(7)
            .with_priority(2)
            .with_zone("eu-1b")
            .with_tags(["v2", "blue", "v2"])
            .with_metadata("shard", "3")
            .with_status(InstanceStatus::Draining)
            .with_started_at_ms(1_700_000_000_000);
        let json = serde_json::to_string(&instance).expect("serialises");
        assert_eq!(serde_json::from_str::<Instance>(&json).expect("deserialises"), instance);
        assert_eq!(instance.tags(), ["blue", "v2"]);
    }

    #[test]
    fn json_without_an_id_or_order_of_tags_is_the_same_instance() {
        let json = r#"{"host": "::1", "port": 80, "tags": ["v2", "blue", "v2"]}"#;
        let instance: Instance = serde_json::from_str(json).expect("host and port");
        assert_eq!(instance, Instance::new("::1", 80).with_tags(["v2", "blue"]));
        assert_eq!(instance.id().as_str(), "[::1]:80");
        serde_json::from_str::<Instance>(r#"{"port": 80}"#).expect_err("no host");
    }

    #[test]
    fn equality_is_by_content_when_the_pointers_differ() {
        let (a, b) = (Instance::new("a", 1), Instance::new("a", 1));
        assert!(!a.ptr_eq(&b));
        assert_eq!(a, b);
        assert_ne!(a, b.with_weight(2));
    }
}
