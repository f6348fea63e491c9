use std::time::Duration;

use serde::Deserialize;
use tower_sd_core::{Error, Result, duration};

use crate::{client::request::CheckRegistration, error};

/// A check that the agent runs itself, beside our heartbeat or in its place.
///
/// There is none that runs a script: every client of the agent could then run programs on it.
///
/// ```
/// use std::time::Duration;
/// use tower_sd::consul::Check;
///
/// let check = Check::http("http://10.0.0.7:8081/health").interval(Duration::from_secs(5));
/// # drop(check);
/// ```
///
/// In a configuration it has one of `http`, `tcp`, `grpc` and `alias`, and the settings under the
/// names of their setters:
///
/// ```
/// # use tower_sd::consul::Check;
/// let check: Check = serde_json::from_str(
///     r#"{"grpc": "10.0.0.7:9000/shop.Orders", "grpc_tls": true, "interval": "5s"}"#,
/// )?;
/// # drop(check);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[must_use]
#[serde(try_from = "Fields")]
pub struct Check {
    kind: Kind,
    interval: Duration,
    timeout: Duration,
    successes_before_passing: u32,
    failures_before_critical: u32,
}

/// A check in a configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    http: Option<String>,
    tcp: Option<String>,
    grpc: Option<String>,
    alias: Option<String>,
    method: Option<String>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    grpc_tls: bool,
    #[serde(default = "interval", deserialize_with = "duration::deserialize")]
    interval: Duration,
    #[serde(default = "timeout", deserialize_with = "duration::deserialize")]
    timeout: Duration,
    #[serde(default)]
    successes_before_passing: u32,
    #[serde(default)]
    failures_before_critical: u32,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Kind {
    Http { url: String, method: Option<String>, tls_skip_verify: bool },
    Tcp(String),
    Grpc { target: String, tls: bool },
    Alias(String),
}

impl Check {
    /// A request to `url` from the agent.
    ///
    /// 2xx passes, 429 warns, anything else is critical.
    pub fn http(url: impl Into<String>) -> Self {
        Self::of(Kind::Http { url: url.into(), method: None, tls_skip_verify: false })
    }

    /// A connection to `host:port` from the agent.
    pub fn tcp(address: impl Into<String>) -> Self {
        Self::of(Kind::Tcp(address.into()))
    }

    /// gRPC's health protocol at `host:port`, or `host:port/service`.
    pub fn grpc(target: impl Into<String>) -> Self {
        Self::of(Kind::Grpc { target: target.into(), tls: false })
    }

    /// As healthy as another service of the same agent, by Consul's id of it.
    pub fn alias(service_id: impl Into<String>) -> Self {
        Self::of(Kind::Alias(service_id.into()))
    }

    /// The method of an HTTP check. Defaults to `GET`.
    pub fn method(mut self, wanted: impl Into<String>) -> Self {
        if let Kind::Http { method, .. } = &mut self.kind {
            *method = Some(wanted.into());
        }
        self
    }

    /// Has a gRPC check use TLS.
    pub fn grpc_tls(mut self) -> Self {
        if let Kind::Grpc { tls, .. } = &mut self.kind {
            *tls = true;
        }
        self
    }

    /// Has an HTTP check accept any certificate.
    pub fn skip_verify(mut self) -> Self {
        if let Kind::Http { tls_skip_verify, .. } = &mut self.kind {
            *tls_skip_verify = true;
        }
        self
    }

    /// How often the agent checks. Defaults to 10 s.
    ///
    /// Less than 1 s counts as 1 s, as the agent has it. A check is critical until the agent has
    /// made the first one, within this interval.
    pub fn interval(self, interval: Duration) -> Self {
        Self { interval: interval.max(MIN_INTERVAL), ..self }
    }

    /// How long one check may take. Defaults to 5 s.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// How many checks in a row have to pass before it passes. Defaults to 1.
    pub fn successes_before_passing(self, n: u32) -> Self {
        Self { successes_before_passing: n.max(1), ..self }
    }

    /// How many checks in a row have to fail before it is critical. Defaults to 1.
    pub fn failures_before_critical(self, n: u32) -> Self {
        Self { failures_before_critical: n.max(1), ..self }
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            interval: interval(),
            timeout: timeout(),
            successes_before_passing: 1,
            failures_before_critical: 1,
        }
    }

    /// What is sent for it, under this id.
    pub(super) fn registration(&self, id: String) -> CheckRegistration {
        let mut check = CheckRegistration { id, ..CheckRegistration::default() };
        match &self.kind {
            Kind::Http { url, method, tls_skip_verify } => {
                check.name = format!("HTTP {url}");
                check.http = Some(url.clone());
                check.method.clone_from(method);
                check.tls_skip_verify = *tls_skip_verify;
            }
            Kind::Tcp(address) => {
                check.name = format!("TCP {address}");
                check.tcp = Some(address.clone());
            }
            Kind::Grpc { target, tls } => {
                check.name = format!("gRPC {target}");
                check.grpc = Some(target.clone());
                check.grpc_use_tls = *tls;
            }
            Kind::Alias(service_id) => {
                check.name = format!("alias of {service_id}");
                check.alias_service = Some(service_id.clone());
                return check;
            }
        }
        check.interval = Some(go_duration(self.interval));
        check.timeout = Some(go_duration(self.timeout));
        // 0 and 1 are the same to Consul, and 0 is its default.
        check.success_before_passing = self.successes_before_passing;
        check.failures_before_critical = self.failures_before_critical;
        check
    }
}

impl TryFrom<Fields> for Check {
    type Error = Error;

    fn try_from(fields: Fields) -> Result<Self> {
        let Fields { http, tcp, grpc, alias, .. } = fields;
        let mut kinds = [
            http.map(Self::http),
            tcp.map(Self::tcp),
            grpc.map(Self::grpc),
            alias.map(Self::alias),
        ]
        .into_iter()
        .flatten();
        let (Some(mut check), None) = (kinds.next(), kinds.next()) else {
            return Err(refused("one of http, tcp, grpc and alias is given"));
        };
        let (has_of_http, has_of_grpc) =
            (fields.method.is_some() || fields.skip_verify, fields.grpc_tls);
        match &mut check.kind {
            Kind::Http { method, tls_skip_verify, .. } if !has_of_grpc => {
                (*method, *tls_skip_verify) = (fields.method, fields.skip_verify);
            }
            Kind::Grpc { tls, .. } if !has_of_http => *tls = fields.grpc_tls,
            Kind::Tcp(_) | Kind::Alias(_) if !has_of_http && !has_of_grpc => {}
            _ => return Err(refused("method and skip_verify belong to http, grpc_tls to grpc")),
        }
        let check = check.interval(fields.interval).timeout(fields.timeout);
        Ok(check
            .successes_before_passing(fields.successes_before_passing)
            .failures_before_critical(fields.failures_before_critical))
    }
}

fn interval() -> Duration {
    Duration::from_secs(10)
}

fn timeout() -> Duration {
    Duration::from_secs(5)
}

fn refused(reason: &str) -> Error {
    error::config("configure", format!("check: {reason}"))
}

/// As Go parses it.
pub(super) fn go_duration(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// `MinInterval` of Consul's agent/checks.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
