use std::time::Duration;

use tower_sd_core::Result;
use url::Url;

use super::{ConsulConfig, env::boolean, refuse, tls::TlsFiles};
use crate::Query;

impl ConsulConfig {
    /// An agent, and a service where the URL names one: `consul://host:8500/service?tag=a&passing=true`.
    ///
    /// The port is 8500 unless given. Options of the service: `tag` (may repeat), `passing`, `near`, `stale`,
    /// `consistent`, `filter`, `wait` (`30s`, `500ms`, `2m`). Of the agent: `dc`, `ns`, `partition`, `token-file`, `tls`,
    /// `ca-file`, `ca-path`, `cert-file`, `key-file`, `server-name`, `verify`; of registrations: `ttl` (`15s`). The
    /// service may be percent-encoded. Any option of TLS switches it on.
    ///
    /// ```
    /// use tower_sd_consul::ConsulConfig;
    ///
    /// let (config, query) = ConsulConfig::from_url("consul://10.0.0.1/arithmetic?tag=v2&dc=eu")?;
    /// assert_eq!(config.address, "10.0.0.1:8500");
    /// assert_eq!(query.as_ref().map(|query| query.name()), Some("arithmetic"));
    /// # Ok::<(), tower_sd_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Config` for settings that cannot work; for a path of several parts; for an unknown option, naming it and those there are; for a user, password or token in the URL, naming
    /// what to use instead.
    pub fn from_url(url: &str) -> Result<(Self, Option<Query>)> {
        let parsed = Url::parse(url).map_err(|cause| {
            // Not shown: what cannot be parsed may have a secret anywhere.
            refuse("not a URL such as consul://host:8500/service".into()).with_source(cause)
        })?;
        if parsed.scheme() != "consul" {
            let scheme = parsed.scheme();
            return Err(refuse(format!("the scheme is {scheme:?}, not consul")));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            let instead = "use ConsulConfig::basic_auth or CONSUL_HTTP_AUTH";
            return Err(refuse(format!("a user or password in a URL gets logged; {instead}")));
        }
        let host = parsed.host_str().filter(|host| !host.is_empty());
        let Some(host) = host else {
            let shown = shown(&parsed);
            return Err(refuse(format!(
                "{shown:?} names no host; write it like consul://host:8500/service"
            )));
        };
        let mut config = Self::new(format!("{host}:{}", parsed.port().unwrap_or(DEFAULT_PORT)));
        let mut query = match parsed.path().trim_matches('/') {
            "" => None,
            path if path.contains('/') => {
                return Err(refuse(format!(
                    "the path {path:?} has several parts, and a service is one; write a slash in a name as %2F"
                )));
            }
            path => Some(Query::service(decoded(path)?)),
        };
        let mut tls = TlsOptions::default();
        for (option, value) in parsed.query_pairs() {
            if !config.set(&option, &value)? && !tls.set(&option, &value)? {
                query = Some(apply(query, &option, &value)?);
            }
        }
        tls.apply(&mut config)?;
        config.validate()?;
        Ok((config, query))
    }

    /// Sets an option of the agent; false when it is none.
    fn set(&mut self, option: &str, value: &str) -> Result<bool> {
        let text = || Some(value.to_owned());
        match option {
            "dc" => self.datacenter = text(),
            "ns" => self.namespace = text(),
            "partition" => self.partition = text(),
            "token-file" => self.token_file = Some(value.into()),
            "ttl" => self.ttl = duration(option, value)?,
            "token" => {
                let instead = "use token-file, ConsulConfig::token or CONSUL_HTTP_TOKEN";
                return Err(refuse(format!(
                    "option token: a token in a URL gets logged; {instead}"
                )));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The options of TLS.
#[derive(Default)]
struct TlsOptions {
    enabled: Option<bool>,
    files: TlsFiles,
}

impl TlsOptions {
    /// Sets an option; false when it is another's.
    fn set(&mut self, option: &str, value: &str) -> Result<bool> {
        let text = || Some(value.to_owned());
        match option {
            "tls" => self.enabled = Some(flag(option, value)?),
            "ca-file" | "ca-path" => self.files.roots.push(value.to_owned()),
            "cert-file" => self.files.certificate = text(),
            "key-file" => self.files.key = text(),
            "server-name" => self.files.server_name = text(),
            "verify" => self.files.skip_verify = !flag(option, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Any of them is TLS, unless it is denied: then they would be ignored.
    fn apply(self, config: &mut ConsulConfig) -> Result<()> {
        let has_files = self.files != TlsFiles::default();
        match self.enabled {
            Some(false) if has_files => {
                Err(refuse("option tls: false, and other options set up TLS".into()))
            }
            Some(false) => Ok(()),
            None if !has_files => Ok(()),
            Some(true) | None => {
                config.tls = Some(self.files.config("cert-file", "key-file")?);
                Ok(())
            }
        }
    }
}

/// Sets an option of the service.
fn apply(query: Option<Query>, option: &str, value: &str) -> Result<Query> {
    if !QUERY_OPTIONS.contains(&option) {
        let known = [QUERY_OPTIONS, CONFIG_OPTIONS].concat().join(", ");
        return Err(refuse(format!("unknown option {option:?}; there are {known}")));
    }
    let Some(query) = query else {
        let what =
            format!("option {option} needs a service: consul://host:8500/service?{option}=…");
        return Err(refuse(what));
    };
    Ok(match option {
        "tag" if value.is_empty() => {
            return Err(refuse("option tag: is empty; name a tag, or leave it away".into()));
        }
        "tag" => query.tag(value),
        "passing" if flag(option, value)? => query.passing(),
        "near" => query.near(value),
        "stale" if flag(option, value)? => query.stale(),
        "consistent" if flag(option, value)? => query.consistent(),
        "filter" => query.filter(value),
        "wait" => query.wait(duration(option, value)?),
        _ => query,
    })
}

fn flag(option: &str, value: &str) -> Result<bool> {
    boolean(&format!("option {option}"), value)
}

/// What may be logged of a URL: neither its options nor a user.
fn shown(url: &Url) -> String {
    let path = url.path();
    match url.has_authority() {
        true => format!("{}://{path}", url.scheme()),
        false => format!("{}:{}", url.scheme(), path.rsplit('@').next().unwrap_or_default()),
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
        _ => Err(refuse(format!(
            "option {option}: {value:?} is not a time such as 30s, 500ms or 2m"
        ))),
    }
}

/// A path with percent signs, as text.
fn decoded(path: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        let digits = |rest: &mut std::str::Bytes<'_>| {
            let pair = [rest.next()?, rest.next()?];
            u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()
        };
        bytes.push(match byte {
            b'%' => digits(&mut rest).unwrap_or(b'%'),
            byte => byte,
        });
    }
    String::from_utf8(bytes)
        .map_err(|cause| refuse("the service is not UTF-8".into()).with_source(cause))
}

const DEFAULT_PORT: u16 = 8500;
const QUERY_OPTIONS: &[&str] = &["tag", "passing", "near", "stale", "consistent", "filter", "wait"];
const CONFIG_OPTIONS: &[&str] = &[
    "dc",
    "ns",
    "partition",
    "token-file",
    "tls",
    "ca-file",
    "ca-path",
    "cert-file",
    "key-file",
    "server-name",
    "verify",
    "ttl",
];
