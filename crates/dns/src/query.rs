use std::{net::IpAddr, str::FromStr, time::Duration};

use hickory_resolver::proto::rr::{Name, RecordType};
use tower_sd_core::{Error, ErrorKind, Result};

use crate::BACKEND;

/// A name to look up, and the use of its records.
///
/// A name is complete, with or without a dot at its end: the system's search list is not used.
/// Letters outside of ASCII are converted by IDNA.
#[derive(Clone, Debug)]
#[must_use]
pub struct Query {
    pub(crate) name: Name,
    pub(crate) kind: Kind,
    pub(crate) family: Family,
    pub(crate) retention: Duration,
}

/// The addresses of a host that are used.
///
/// A host with both kinds is one machine, and as two instances it would get twice the traffic.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Family {
    /// Its IPv4 addresses, or else its IPv6 addresses.
    #[default]
    Ipv4First,
    /// Its IPv6 addresses, or else its IPv4 addresses.
    Ipv6First,
    /// All of them, each an instance.
    Both,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Srv,
    /// A and AAAA, with this port.
    Host(u16),
}

impl Query {
    /// Queries the SRV records of `name`.
    ///
    /// It is `_http._tcp.example.org`, or a plain name if its zone has them there
    /// (`web.service.consul`).
    ///
    /// # Errors
    ///
    /// `Config`: `name` is not a name of DNS.
    pub fn srv(name: &str) -> Result<Self> {
        Ok(Self::new(parse(name)?, Kind::Srv))
    }

    /// Queries the addresses of `host`, each an instance with this port.
    ///
    /// # Errors
    ///
    /// `Config`: `host` is not a name of DNS or is an IP address, or `port` is 0.
    pub fn host(host: &str, port: u16) -> Result<Self> {
        if host.parse::<IpAddr>().is_ok() {
            let message = format!("{host:?} is an address already; use a FixedInstancer");
            return Err(config(message));
        }
        if port == 0 {
            let message = format!("port 0 of {host:?} cannot be connected to; give the real one");
            return Err(config(message));
        }
        Ok(Self::new(parse(host)?, Kind::Host(port)))
    }

    /// Sets the addresses of a host that are used. Defaults to IPv4, or else IPv6.
    pub fn family(self, family: Family) -> Self {
        Self { family, ..self }
    }

    /// Sets the time for which an instance stays after the last answer that listed it.
    ///
    /// Defaults to zero: the set is the last answer. For names whose answers rotate (Route 53 and
    /// others return 8 of many, others every time), several times the TTL makes the set all of
    /// them. In return, an instance that was taken out of DNS stays for that long. It is the
    /// [`removal_wait`](tower_sd_core::RegistryConfig::removal_wait) of the set, if that is
    /// shorter.
    pub fn retention(self, retention: Duration) -> Self {
        Self { retention, ..self }
    }

    fn new(name: Name, kind: Kind) -> Self {
        Self { name, kind, family: Family::default(), retention: Duration::ZERO }
    }
}

/// Parses a name of SRV records, or `host:port` for addresses.
impl FromStr for Query {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((host, port)) = text.rsplit_once(':') else { return Self::srv(text) };
        let port = port.parse::<u16>().map_err(|cause| {
            let message = format!("{port:?} of {text:?} is not a port; give a number up to 65535");
            config(message).with_source(cause)
        })?;
        Self::host(host.trim_matches(['[', ']']), port)
    }
}

impl Family {
    /// The record types in the order of their queries.
    pub(crate) fn order(self) -> [RecordType; 2] {
        match self {
            Self::Ipv4First | Self::Both => [RecordType::A, RecordType::AAAA],
            Self::Ipv6First => [RecordType::AAAA, RecordType::A],
        }
    }

    /// Whether a query for more addresses than these has no use.
    pub(crate) fn is_in(self, ips: &[IpAddr]) -> bool {
        let (v4, v6) = (ips.iter().any(IpAddr::is_ipv4), ips.iter().any(IpAddr::is_ipv6));
        match self {
            Self::Ipv4First => v4,
            Self::Ipv6First => v6,
            Self::Both => v4 && v6,
        }
    }
}

/// A name without the dot at its end, in small letters.
pub(crate) fn shown(name: &Name) -> String {
    let mut name = name.to_lowercase();
    name.set_fqdn(false);
    name.to_ascii()
}

pub(crate) fn config(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, BACKEND, "configure").with_message(message)
}

fn parse(text: &str) -> Result<Name> {
    let refused = |why: &str| {
        config(format!(
            "{text:?} is not a name of DNS: {why}; write it like _http._tcp.example.org"
        ))
    };
    if text.is_empty() || text == "." {
        return Err(refused("it is empty"));
    }
    let labels = text.strip_suffix('.').unwrap_or(text).split('.');
    if labels.clone().any(str::is_empty) {
        let n = labels.clone().take_while(|label| !label.is_empty()).count() + 1;
        return Err(refused(&format!("label {n} of {} is empty", labels.count())));
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || "/:@?#\\*".contains(c)) {
        return Err(refused("a name has letters, digits, hyphens, underscores and dots only"));
    }
    let mut name = Name::from_utf8(text).map_err(|cause| {
        refused("its labels have 1 to 63 letters, all of it at most 255").with_source(cause)
    })?;
    name.set_fqdn(true);
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_complete_with_and_without_its_last_dot() {
        for text in ["_http._tcp.Example.org", "_http._tcp.example.org."] {
            let query = Query::srv(text).expect("a name");
            assert!(query.name.is_fqdn());
            assert_eq!(shown(&query.name), "_http._tcp.example.org");
        }
    }

    #[test]
    fn text_with_a_port_is_a_host() {
        let query = |text: &str| text.parse::<Query>().expect(text);
        assert_eq!(query("_http._tcp.example.org").kind, Kind::Srv);
        let host = query("a.example:8080");
        assert_eq!((shown(&host.name).as_str(), host.kind), ("a.example", Kind::Host(8080)));
        for (text, why) in [
            ("", "\"\" is not a name of DNS"),
            ("a.example:99999", "\"99999\" of \"a.example:99999\" is not a port"),
            ("[::1]:80", "\"::1\" is an address already"),
            ("users..consul", "label 2 of 3 is empty"),
        ] {
            let error = text.parse::<Query>().expect_err(text).to_string();
            assert!(error.starts_with("dns configure: ") && error.contains(why), "{error}");
        }
    }

    #[test]
    fn letters_outside_of_ascii_are_converted() {
        let query = Query::srv("_http._tcp.bücher.example").expect("a name");
        assert_eq!(shown(&query.name), "_http._tcp.xn--bcher-kva.example");
    }

    #[test]
    fn what_is_no_name_is_refused_with_a_sentence() {
        let long = "a".repeat(64);
        for text in ["", ".", "a b", "a/b", "http://a", "a..b", "_bü._tcp.a", long.as_str()] {
            let error = Query::srv(text).expect_err(text).to_string();
            assert!(error.contains(&format!("{text:?} is not a name of DNS: ")), "{error}");
            assert!(error.contains("; write it like"), "{error}");
        }
    }

    #[test]
    fn address_and_port_zero_are_refused_with_a_way_out() {
        let error = Query::host("::1", 80).expect_err("an address").to_string();
        assert!(error.contains("FixedInstancer"), "{error}");
        let error = Query::host("a.example", 0).expect_err("port 0").to_string();
        assert!(error.contains("give the real one"), "{error}");
    }
}
