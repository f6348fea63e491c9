use std::{
    error, fmt,
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

use crate::Instance;

/// Which addresses from a registry are accepted.
///
/// A writer to the registry could otherwise point clients at a cloud's metadata service or at any
/// internal host. Wildcard and multicast addresses, port 0 and hosts that are neither an IP address
/// nor a DNS name are always refused: no instance can be reached there. Unix sockets (`unix:/path`)
/// are refused unless [`unix_sockets`](Self::unix_sockets) is set: a registry must not lead to the
/// sockets of a client's own machine. Link-local networks are denied by default, because
/// `169.254.169.254` hands out credentials, and so are the IPv6 addresses of such services,
/// `fd00:ec2::254` (Amazon) and `fd20:ce::254` (Google); loopback is not, because development lives
/// there. An IPv4 address inside an IPv6 address (IPv4-mapped, NAT64 by RFC 6052, 6to4 by RFC 3056)
/// is checked as the IPv4 address that it leads to, too.
///
/// A host *name* passes unless [`ip_only`](Self::ip_only) is set, since it is resolved when it is
/// connected to; a connector must check each resolved address by [`allows`](Self::allows). A name
/// that ends in a number is refused: resolvers read `2852039166` and `0251.0376.0251.0376` as IPv4
/// addresses. A name with other letters than those of ASCII is refused, as neither resolvers nor
/// HTTP take it; its form for them begins with `xn--`.
///
/// ```
/// use tower_sd::discovery::AddressPolicy;
/// use tower_sd::Instance;
///
/// let policy = AddressPolicy::default().allow(["10.0.0.0/8".parse()?]).ports(1024..=65535);
/// assert!(policy.check(&Instance::new("10.1.2.3", 8080)).is_ok());
/// let refused = policy.check(&Instance::new("192.0.2.1", 8080)).unwrap_err();
/// assert_eq!(refused.to_string(), "192.0.2.1:8080: not in an allowed network");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
#[must_use]
pub struct AddressPolicy {
    allow: Vec<IpNet>,
    /// Of a file: besides those that are denied by default.
    #[serde(deserialize_with = "denied")]
    deny: Vec<IpNet>,
    ports: RangeInclusive<u16>,
    ip_only: bool,
    unix_sockets: bool,
}

/// An address that an [`AddressPolicy`] refuses, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AddressRejected {
    instance: String,
    pub(crate) reason: &'static str,
}

impl AddressPolicy {
    /// Accepts everything that can be reached at all.
    ///
    /// Link-local networks and metadata services too.
    pub fn any() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            ports: 1..=u16::MAX,
            ip_only: false,
            unix_sockets: false,
        }
    }

    /// Allows IP addresses of these networks only.
    ///
    /// Defaults to every network that is not denied.
    pub fn allow(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.allow.extend(networks);
        self
    }

    /// Denies these networks, besides those that are denied by default.
    ///
    /// A denied network wins over an allowed one.
    pub fn deny(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.deny.extend(networks);
        self
    }

    /// Allows these ports only. Defaults to all but 0.
    pub fn ports(self, ports: RangeInclusive<u16>) -> Self {
        Self { ports, ..self }
    }

    /// Refuses host names.
    pub fn ip_only(self) -> Self {
        Self { ip_only: true, ..self }
    }

    /// Allows the hosts `unix:/path`, which are sockets of the client's machine.
    ///
    /// Their port has no meaning.
    pub fn unix_sockets(self) -> Self {
        Self { unix_sockets: true, ..self }
    }

    /// Whether this instance is accepted.
    ///
    /// # Errors
    ///
    /// Returns why it is not.
    pub fn check(&self, instance: &Instance) -> Result<(), AddressRejected> {
        let refused = |reason| Err(AddressRejected { instance: instance.to_string(), reason });
        if self.unix_sockets && instance.host().starts_with("unix:/") {
            return Ok(());
        }
        if instance.port() == 0 {
            return refused("port 0 cannot be connected to");
        }
        if !self.ports.contains(&instance.port()) {
            return refused("not an allowed port");
        }
        match instance.host().parse::<IpAddr>() {
            Ok(ip) => self.allows(ip).or_else(refused),
            Err(_) if self.ip_only => refused("a host name where only IP addresses are allowed"),
            Err(_) if ends_in_number(instance.host()) => {
                refused("a number that resolvers read as an IPv4 address")
            }
            Err(_) if !is_host_name(instance.host()) => {
                refused("neither a host name in ASCII nor an IP address")
            }
            Err(_) => Ok(()),
        }
    }

    /// Checks an IP address that a host name was resolved to, before a connection.
    ///
    /// # Errors
    ///
    /// The reason of the refusal.
    pub fn allows(&self, ip: IpAddr) -> Result<(), &'static str> {
        let (written, ip) = (ip, destination(ip));
        let within = |networks: &[IpNet]| {
            networks.iter().any(|network| network.contains(&ip) || network.contains(&written))
        };
        if ip.is_unspecified() {
            Err("a wildcard address cannot be connected to")
        } else if ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast()) {
            Err("a multicast or broadcast address is no instance")
        } else if within(&self.deny) {
            Err("in a denied network")
        } else if !self.allow.is_empty() && !within(&self.allow) {
            Err("not in an allowed network")
        } else {
            Ok(())
        }
    }
}

fn denied<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let networks = Vec::deserialize(deserializer)?;
    Ok(AddressPolicy::default().deny(networks).deny)
}

impl Default for AddressPolicy {
    fn default() -> Self {
        let network = |address: IpAddr, prefix| IpNet::new_assert(address, prefix);
        Self::any().deny([
            network(IpAddr::from([169, 254, 0, 0]), 16),
            network(IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0]), 10),
            network(IpAddr::from([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]), 128),
            network(IpAddr::from([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]), 128),
        ])
    }
}

/// The IPv4 address that an IPv6 address leads to, if it is one in other clothes.
fn destination(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)).into()
        }
        _ => ip.to_canonical(),
    }
}

impl fmt::Display for AddressRejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.instance.escape_default(), self.reason)
    }
}

impl error::Error for AddressRejected {}

/// Whether resolvers read a host as an IPv4 address, in one of the forms that [`IpAddr`] does not
/// accept: decimal, octal, hexadecimal, with fewer than four parts. WHATWG URL, "ends in a number
/// checker".
fn ends_in_number(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or(host);
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => digits.bytes().all(|digit| digit.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|digit| digit.is_ascii_digit()),
    }
}

/// Letters, digits, `-`, `_` and dots: RFC 1123, and what Docker calls hosts.
fn is_host_name(host: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let labels = host.strip_suffix('.').unwrap_or(host);
    host.len() <= MAX_NAME
        && labels.split('.').all(|label| !label.is_empty() && label.chars().all(allowed))
}

/// RFC 1035 §2.3.4.
const MAX_NAME: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(policy: &AddressPolicy, host: &str, port: u16) -> bool {
        policy.check(&Instance::new(host, port)).is_err()
    }

    #[test]
    fn unreachable_and_link_local_addresses_are_refused() {
        let policy = AddressPolicy::default();
        for host in ["169.254.169.254", "0.0.0.0", "::", "fe80::1", "224.0.0.1", "ff02::1"] {
            assert!(refused(&policy, host, 80), "{host}");
        }
        for host in
            ["unix:/run/x.sock", "", "a b", "a/b", "user@host", "http://a", "255.255.255.255"]
        {
            assert!(refused(&policy, host, 80), "{host}");
        }
        assert!(refused(&policy, "10.0.0.1", 0));
        let disguised = ["::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"];
        for host in disguised.iter().chain(&["fd00:ec2::254", "fd20:ce::254", "bücher.example"]) {
            assert!(refused(&policy, host, 80), "{host}");
        }
        let names = ["a.example", "a_1", "a.", "xn--bcher-kva.example"];
        for host in ["10.0.0.1", "127.0.0.1", "::1", "64:ff9b::808:808"].iter().chain(&names) {
            assert!(!refused(&policy, host, 80), "{host}");
        }
    }

    #[test]
    fn even_any_refuses_unreachable_addresses() {
        assert!(refused(&AddressPolicy::any(), "0.0.0.0", 80));
        assert!(refused(&AddressPolicy::any(), "10.0.0.1", 0));
        assert!(!refused(&AddressPolicy::any(), "169.254.1.1", 80));
    }

    /// `getaddrinfo` makes 169.254.169.254 of each of the first four.
    #[test]
    fn numeric_hosts_are_refused() {
        let scripts =
            ["１６９.２５４.１６９.２５４", "0ｘa9fea9fe", "a.②", "１６９.254.1.1", "a.２."];
        let numeric = ["2852039166", "0xa9fea9fe", "169.254.43518", "0251.0376.0251.0376"];
        for host in numeric
            .iter()
            .chain(&["0x", "1.2.3.4.5", "a.example.1", "127.1.", "0Xff."])
            .chain(&scripts)
        {
            for policy in [AddressPolicy::default(), AddressPolicy::any()] {
                assert!(refused(&policy, host, 80), "{host}");
            }
        }
        for host in ["0xg", "1a", "3com.example", "x1", "1.example", "0x1.example"] {
            assert!(!refused(&AddressPolicy::default(), host, 80), "{host}");
        }
    }

    #[test]
    fn unix_sockets_are_allowed_on_demand_only() {
        assert!(refused(&AddressPolicy::any(), "unix:/run/x.sock", 0));
        let policy = AddressPolicy::default().unix_sockets();
        assert!(!refused(&policy, "unix:/run/x.sock", 0));
        assert!(refused(&policy, "unix:x.sock", 0), "a relative path");
    }

    #[test]
    fn networks_contain_an_address_in_both_of_its_forms() {
        let network = |text: &str| [text.parse().expect("a network")];
        for form in ["64:ff9b::/96", "8.0.0.0/8"] {
            let (allowed, denied) = (AddressPolicy::any(), AddressPolicy::any());
            assert!(!refused(&allowed.allow(network(form)), "64:ff9b::808:808", 80), "{form}");
            assert!(refused(&denied.deny(network(form)), "64:ff9b::808:808", 80), "{form}");
        }
    }

    #[test]
    fn ip_only_refuses_names() {
        assert!(refused(&AddressPolicy::default().ip_only(), "a.example", 80));
        assert!(!refused(&AddressPolicy::default().ip_only(), "::1", 80));
    }
}
