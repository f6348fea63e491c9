//! The one grammar of all registries' URLs.

#[cfg(test)]
mod tests;

use std::{ffi::OsString, fmt, net::Ipv6Addr, path::PathBuf, time::Duration};

use percent_encoding::percent_decode_str;

use crate::{Error, ErrorKind, Result, TlsConfig, duration};

/// A registry's URL, taken apart for its backend.
///
/// ```text
/// scheme://host:port,host:port/path?option=value&option=value
/// ```
///
/// - A URL locates a registry and sets it up. It never names a service.
/// - Host, path and values may be percent-encoded; a plus sign is a plus sign. Control characters,
///   such as the line end of a file, are refused.
/// - A duration is `500ms`, `15s`, `2m` or `1h`; a boolean is `true` or `false`.
/// - A list is separated by commas, or repeats its option. No other option may repeat.
/// - A secret is in a file that an option names: URLs get logged.
///
/// A backend requests each option that it has by its name, and calls [`finish`](Self::finish) at
/// the end: an option that no call requested is an error, which lists the others.
///
/// ```
/// use tower_sd::backend::RegistryUrl;
///
/// let mut url = RegistryUrl::parse("shelf", "shelf://a:1,b/books?ttl=15s&tag=x,y")?;
/// assert_eq!(url.addresses(80), ["a:1", "b:80"]);
/// assert_eq!(url.path(), "books");
/// assert_eq!(url.list("tag")?, ["x", "y"]);
/// let error = url.finish().unwrap_err();
/// assert_eq!(error.to_string(), "shelf configure: unknown option \"ttl\"; the options are tag");
/// # Ok::<(), tower_sd::Error>(())
/// ```
#[must_use]
pub struct RegistryUrl {
    backend: &'static str,
    hosts: Vec<String>,
    path: String,
    /// Names, and values that are still percent-encoded.
    options: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl RegistryUrl {
    /// Takes a URL apart whose scheme must be the name of the backend.
    ///
    /// # Errors
    ///
    /// `Config` for a text that is no such URL, and for a user or password in it. The error never
    /// contains the URL.
    pub fn parse(backend: &'static str, url: &str) -> Result<Self> {
        let refuse = |message: String| Err(refusal(backend, message));
        let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| is_scheme(scheme))
        else {
            return refuse(format!("not a URL such as {backend}://host:port or {backend}:///path"));
        };
        if scheme != backend {
            return refuse(format!("the scheme is {scheme:?}, not {backend}"));
        }
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        // A password may have a slash or a question mark in it.
        let names = options.split('&').filter_map(|option| option.split('=').next());
        if has_user(rest) || options.contains('@') || names.into_iter().any(has_user) {
            let instead = "name a file by an option, or set it in code";
            let literal = "an @ in the value of an option is written %40";
            return refuse(format!(
                "a user or password in a URL gets logged; {instead} ({literal})"
            ));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let decoded = |text: &str, what: &str| match decode(text) {
            Ok(text) => Ok(text),
            Err(why) => Err(refusal(backend, format!("{what} is {why}"))),
        };
        let hosts = match authority {
            "" => Vec::new(),
            hosts => hosts.split(',').map(|host| decoded(host, "a host")).collect::<Result<_>>()?,
        };
        if hosts.iter().any(String::is_empty) {
            return refuse("one of the hosts is empty".into());
        }
        if hosts.iter().any(|host| has_odd_port(host)) {
            return refuse("one of the ports is not a number up to 65535".into());
        }
        let options = options.split('&').filter(|option| !option.is_empty()).map(|option| {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            (name.to_owned(), value.to_owned())
        });
        let (options, path) = (options.collect(), decoded(path, "the path")?);
        Ok(Self { backend, hosts, path, options, known: Vec::new() })
    }

    /// Returns the hosts, each with a port; an IPv6 address is in brackets.
    pub fn addresses(&self, default_port: u16) -> Vec<String> {
        let with_port = |host: &String| {
            let has_port = match host.rsplit_once(']') {
                Some((_, behind)) => behind.starts_with(':'),
                None if is_ipv6(host) => return format!("[{host}]:{default_port}"),
                None => host.contains(':'),
            };
            if has_port { host.clone() } else { format!("{host}:{default_port}") }
        };
        self.hosts.iter().map(with_port).collect()
    }

    /// Returns the path without the slash between it and the hosts.
    ///
    /// A URL without hosts has three slashes: the path of `file:///etc/instances.json` is
    /// `etc/instances.json`, and `/` before it makes it absolute.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Refuses a path.
    ///
    /// # Errors
    ///
    /// `Config`: there is one. It is probably meant as a service.
    pub fn no_path(&self) -> Result<()> {
        match self.path.as_str() {
            "" => Ok(()),
            path => Err(self.refusal(format!(
                "a registry's URL has no path, and {path:?} is one; a service is named by instancer({path:?})"
            ))),
        }
    }

    /// Takes an option.
    ///
    /// # Errors
    ///
    /// `Config`: it is empty, or given twice.
    pub fn text(&mut self, option: &'static str) -> Result<Option<String>> {
        let mut values = self.take(option).into_iter();
        let (value, more) = (values.next(), values.next());
        if more.is_some() {
            return Err(self.wrong(option, "given twice"));
        }
        value.map(|value| self.decoded(option, &value)).transpose()
    }

    /// Takes an option with several values, separated by commas or repeated.
    ///
    /// # Errors
    ///
    /// `Config`: a value is empty.
    pub fn list(&mut self, option: &'static str) -> Result<Vec<String>> {
        let values = self.take(option);
        let values = values.iter().flat_map(|values| values.split(','));
        values.map(|value| self.decoded(option, value)).collect()
    }

    /// Takes a boolean.
    ///
    /// # Errors
    ///
    /// `Config`: it is neither true nor false.
    pub fn flag(&mut self, option: &'static str) -> Result<Option<bool>> {
        self.converted(option, boolean, |value| format!("{value:?} is neither true nor false"))
    }

    /// Takes a duration: `500ms`, `15s`, `2m` or `1h`.
    ///
    /// # Errors
    ///
    /// `Config`: it is none.
    pub fn duration(&mut self, option: &'static str) -> Result<Option<Duration>> {
        self.converted(option, duration::parse, duration::expected)
    }

    /// Takes the path of a file.
    ///
    /// # Errors
    ///
    /// As [`text`](Self::text).
    pub fn file(&mut self, option: &'static str) -> Result<Option<PathBuf>> {
        Ok(self.text(option)?.map(PathBuf::from))
    }

    /// Takes the path of a file with a secret.
    ///
    /// Refuses the option `secret` with the secret itself.
    ///
    /// # Errors
    ///
    /// `Config`: the secret itself is given.
    pub fn secret_file(&mut self, option: &'static str, secret: &str) -> Result<Option<PathBuf>> {
        if self.options.iter().any(|(name, _)| name == secret) {
            let what = format!("a secret in a URL gets logged; use {option}, or set it in code");
            return Err(self.refusal(format!("option {secret}: {what}")));
        }
        self.file(option)
    }

    /// Takes the options `user` and `password-file`, which only work together.
    ///
    /// # Errors
    ///
    /// `Config`: one is missing, or the password itself is given.
    pub fn user(&mut self) -> Result<Option<(String, PathBuf)>> {
        match (self.text("user")?, self.secret_file("password-file", "password")?) {
            (None, None) => Ok(None),
            (Some(name), Some(file)) => Ok(Some((name, file))),
            _ => Err(self.refusal("user and password-file only work together")),
        }
    }

    /// Takes the options of TLS; each of them switches it on.
    ///
    /// `tls`, `ca-file` and `ca-path` (several), `cert-file` with `key-file`, `server-name`,
    /// `verify`.
    ///
    /// # Errors
    ///
    /// `Config` for half of a client certificate, and for options beside `tls=false`.
    pub fn tls(&mut self) -> Result<Option<TlsConfig>> {
        let enabled = self.flag("tls")?;
        let roots = [self.list("ca-file")?, self.list("ca-path")?].concat().into_iter();
        let mut tls = roots.fold(TlsConfig::new(), TlsConfig::with_root);
        tls = match (self.file("cert-file")?, self.file("key-file")?) {
            (Some(certificate), Some(key)) => tls.with_identity(certificate, key),
            (None, None) => tls,
            (Some(_), None) => return Err(self.wrong("cert-file", "given without key-file")),
            (None, Some(_)) => return Err(self.wrong("key-file", "given without cert-file")),
        };
        if let Some(name) = self.text("server-name")? {
            tls = tls.with_server_name(name);
        }
        let verify = self.flag("verify")?;
        if verify == Some(false) {
            tls = tls.danger_accept_invalid_certificates();
        }
        match (enabled, verify.is_none() && tls == TlsConfig::new()) {
            (Some(false), false) => Err(self.wrong("tls", "false, and other options set up TLS")),
            (Some(false) | None, true) => Ok(None),
            (Some(true), _) | (None, false) => Ok(Some(tls)),
        }
    }

    /// Refuses the options that were not taken.
    ///
    /// # Errors
    ///
    /// `Config`: there are such; the message lists the known ones.
    pub fn finish(mut self) -> Result<()> {
        let Some((name, _)) = self.options.first() else { return Ok(()) };
        self.known.sort_unstable();
        let known = match self.known.join(", ") {
            known if known.is_empty() => "there are none".to_owned(),
            known => format!("the options are {known}"),
        };
        Err(self.refusal(format!("unknown option {name:?}; {known}")))
    }

    /// Creates the error for a setting of this registry that cannot work.
    pub fn refusal(&self, message: impl Into<String>) -> Error {
        refusal(self.backend, message)
    }

    fn wrong(&self, option: &str, why: impl fmt::Display) -> Error {
        self.refusal(format!("option {option}: {why}"))
    }

    fn take(&mut self, option: &'static str) -> Vec<String> {
        self.known.push(option);
        let taken = self.options.extract_if(.., |(name, _)| name == option);
        taken.map(|(_, value)| value).collect()
    }

    fn decoded(&self, option: &str, value: &str) -> Result<String> {
        match decode(value) {
            Err(why) => Err(self.wrong(option, why)),
            Ok(value) if value.is_empty() => Err(self.wrong(option, "empty")),
            Ok(value) => Ok(value),
        }
    }

    fn converted<T>(
        &mut self,
        option: &'static str,
        convert: impl Fn(&str) -> Option<T>,
        why: impl Fn(&str) -> String,
    ) -> Result<Option<T>> {
        let Some(value) = self.text(option)? else { return Ok(None) };
        convert(&value).map(Some).ok_or_else(|| self.wrong(option, why(&value)))
    }
}

/// Parses a boolean in the eleven forms that Go's `strconv.ParseBool` accepts.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Returns whether a text may have a user or password, as in `user:password@host`.
///
/// Percent-encoded too. Such an address of a registry must be refused without being shown.
///
/// ```
/// use tower_sd_core::url;
///
/// assert!(url::has_user("http://user:s3cr3t@host") && url::has_user("user:s3cr3t%40host"));
/// assert!(!url::has_user("http://host:8500/path"));
/// ```
pub fn has_user(text: &str) -> bool {
    text.contains('@') || text.contains("%40")
}

/// Returns the text for `Debug`, or three stars if it [has a user](has_user).
pub fn without_user(text: &str) -> &str {
    if has_user(text) { "***" } else { text }
}

/// Returns the text of an environment variable; an empty one is missing.
///
/// # Errors
///
/// `Config`: it is not UTF-8.
pub fn variable(
    backend: &'static str,
    name: &str,
    value: Option<OsString>,
) -> Result<Option<String>> {
    let text = value.map(OsString::into_string).transpose();
    let text = text.map_err(|_shown| refusal(backend, format!("{name} is not UTF-8")))?;
    Ok(text.filter(|text| !text.is_empty()))
}

/// RFC 3986 §3.1. Another text may be a secret in the wrong place.
pub(crate) fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// Splits the address of a server, `host:port`.
///
/// An IPv6 address is in brackets. `None` for another text, and for port 0.
///
/// ```
/// use tower_sd_core::url;
///
/// assert_eq!(url::host_and_port("[::1]:2181"), Some(("[::1]", 2181)));
/// assert_eq!(url::host_and_port("2001:db8::1:2181"), None);
/// ```
pub fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port_of(port).filter(|port| *port != 0)?;
    let is_host = !host.is_empty() && !host.contains(['/', '?', '#', ' ', ',']);
    let is_whole = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
    (is_host && is_whole).then_some((host, port))
}

/// Whether the part that stands for the port is none: a password, for example.
fn has_odd_port(host: &str) -> bool {
    let behind = host.rsplit_once(']').map_or(host, |(_, behind)| behind);
    let port = behind.split_once(':').map(|(_, port)| port_of(port));
    !is_ipv6(host) && port.is_some_and(|port| port.is_none())
}

/// Without a sign, which `u16` accepts.
fn port_of(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.starts_with(|c: char| c.is_ascii_digit()))
}

/// With or without a scope.
fn is_ipv6(host: &str) -> bool {
    host.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok())
}

fn refusal(backend: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, backend, "configure").with_message(message)
}

/// Replaces percent-encoded bytes; the error completes a sentence.
fn decode(text: &str) -> Result<String, &'static str> {
    match percent_decode_str(text).decode_utf8() {
        Err(_) => Err("not UTF-8"),
        Ok(text) if text.contains(char::is_control) => Err("not free of control characters"),
        Ok(text) => Ok(text.into_owned()),
    }
}

/// Without values, which may be secrets in the wrong place.
impl fmt::Debug for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryUrl")
            .field("backend", &self.backend)
            .field("hosts", &self.hosts)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
