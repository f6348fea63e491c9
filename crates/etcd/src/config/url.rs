use std::time::Duration;

use tower_sd_core::{Pem, Result, TlsConfig};

use super::{EtcdConfig, User, refused};

impl EtcdConfig {
    /// A cluster, and a service where the URL names one: `etcd://h1:2379,h2,[::1]:2379/prefix/service?ttl=15s`.
    ///
    /// The port is 2379 unless given. What follows the last slash of the path is the service, what
    /// precedes it the prefix: `/prefix/` names a prefix only, `/service` a service below the
    /// default prefix. Both may be percent-encoded.
    ///
    /// Options: `ttl`, `connect-timeout`, `request-timeout`, `ping-interval` (`30s`, `500ms`,
    /// `2m`); `tls` (true: the system's roots), `ca-file`, `cert-file`, `key-file`; `user`,
    /// `password-file`, which is read for every authentication. The files of TLS are read again
    /// when they change.
    ///
    /// ```
    /// use tower_sd_etcd::EtcdConfig;
    ///
    /// let url = "etcd://10.0.0.1,10.0.0.2:2380/shop/cart?ttl=30s";
    /// let (config, service) = EtcdConfig::from_url(url)?;
    /// assert_eq!(config.endpoints, ["10.0.0.1:2379", "10.0.0.2:2380"]);
    /// assert_eq!((config.prefix.as_str(), service.as_deref()), ("shop", Some("cart")));
    /// # Ok::<(), tower_sd_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Config` for settings that cannot work; for an unknown option, naming it and those there
    /// are; for a user or password in the URL, naming what to use instead.
    pub fn from_url(url: &str) -> Result<(Self, Option<String>)> {
        // By hand, because several hosts with ports are no authority to a URL library.
        let Some(rest) = url.strip_prefix("etcd://") else {
            return Err(refused("not a URL such as etcd://h1:2379,h2:2379/prefix/service"));
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        if hosts.contains('@') {
            return Err(refused(format!("a user or password in a URL gets logged; {INSTEAD}")));
        }
        let mut config = Self::new(hosts.split(',').map(with_port));
        let (prefix, service) = match path.rsplit_once('/') {
            Some((prefix, service)) => (Some(prefix), service),
            None => (None, path),
        };
        if let Some(prefix) = prefix {
            config.prefix = decoded(prefix)?;
        }
        let service = if service.is_empty() { None } else { Some(decoded(service)?) };
        config.apply(query)?;
        // Reports errors now, not when a client is made; that shuffles the endpoints.
        config.clone().validated()?;
        Ok((config, service))
    }

    fn apply(&mut self, query: &str) -> Result<()> {
        let (mut files, mut user, mut password_file) = (TlsOptions::default(), None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (option, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            match option {
                "ttl" => self.ttl = duration(option, &value)?,
                "connect-timeout" => self.connect_timeout = duration(option, &value)?,
                "request-timeout" => self.request_timeout = duration(option, &value)?,
                "ping-interval" => self.ping_interval = duration(option, &value)?,
                "tls" => files.enabled = Some(boolean(option, &value)?),
                "ca-file" => files.authority = Some(value),
                "cert-file" => files.certificate = Some(value),
                "key-file" => files.key = Some(value),
                "user" => user = Some(value),
                "password-file" => password_file = Some(value),
                "password" | "token" => {
                    let what = format!("option {option}: a secret in a URL gets logged; {INSTEAD}");
                    return Err(refused(what));
                }
                _ => {
                    let known = OPTIONS.join(", ");
                    let what = format!("unknown option {option:?}; there are {known}");
                    return Err(refused(what));
                }
            }
        }
        self.tls = files.config()?;
        self.user = match (user, password_file) {
            (None, None) => None,
            (Some(name), Some(path)) => Some(User::from_file(name, path)),
            _ => return Err(refused("user and password-file only work together")),
        };
        Ok(())
    }
}

/// The options about TLS.
#[derive(Default)]
struct TlsOptions {
    enabled: Option<bool>,
    authority: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl TlsOptions {
    /// Half of a configuration is an error.
    fn config(self) -> Result<Option<TlsConfig>> {
        let Self { enabled, authority, certificate, key } = self;
        let has_files = authority.is_some() || certificate.is_some() || key.is_some();
        match (enabled, has_files) {
            (Some(false), true) => {
                let what = "tls=false leaves nothing to do for ca-file, cert-file and key-file";
                return Err(refused(what));
            }
            (None | Some(false), false) => return Ok(None),
            _ => {}
        }
        let file = |path: String| Pem::File(path.into());
        let tls = match authority {
            Some(path) => TlsConfig::new().with_root(file(path)),
            None => TlsConfig::new(),
        };
        let tls = match (certificate, key) {
            (Some(certificate), Some(key)) => tls.with_identity(file(certificate), file(key)),
            (None, None) => tls,
            _ => return Err(refused("cert-file and key-file only work together")),
        };
        tls.load().map_err(|cause| {
            refused(format!("ca-file, cert-file or key-file: {}", cause.chain()))
        })?;
        Ok(Some(tls))
    }
}

fn with_port(host: &str) -> String {
    let has_port = match host.rsplit_once(']') {
        Some((_, behind)) => behind.starts_with(':'),
        None => host.contains(':'),
    };
    if has_port || host.is_empty() { host.to_owned() } else { format!("{host}:{DEFAULT_PORT}") }
}

fn boolean(option: &str, value: &str) -> Result<bool> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(refused(format!("option {option}: {value:?} is neither true nor false"))),
    }
}

fn duration(option: &str, value: &str) -> Result<Duration> {
    let split = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at(split);
    let scale = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        _ => None,
    };
    match (number.parse::<u64>(), scale) {
        (Ok(number), Some(scale)) => Ok(Duration::from_millis(number.saturating_mul(scale))),
        _ => {
            let what = format!("option {option}: {value:?} is not a time such as 15s, 500ms or 2m");
            Err(refused(what))
        }
    }
}

/// A part of a URL with percent signs, as text.
fn decoded(part: &str) -> Result<String> {
    let bytes = crate::key::unescape(part.as_bytes());
    String::from_utf8(bytes)
        .map_err(|cause| refused("a part of the URL is not UTF-8").with_source(cause.utf8_error()))
}

/// IANA's, for etcd clients.
const DEFAULT_PORT: u16 = 2379;
const INSTEAD: &str = "use EtcdConfig::user, or the options user and password-file";
const OPTIONS: &[&str] = &[
    "ttl",
    "connect-timeout",
    "request-timeout",
    "ping-interval",
    "tls",
    "ca-file",
    "cert-file",
    "key-file",
    "user",
    "password-file",
];

#[cfg(test)]
mod tests;
