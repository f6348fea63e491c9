//! The name servers and the hosts file of the system.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    time::Duration,
};

use hickory_resolver::Hosts;

/// The system's configuration.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) options: SystemOptions,
    pub(crate) hosts: Hosts,
}

/// The options of resolv.conf that matter to a client which never searches.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct SystemOptions {
    pub(crate) use_tcp: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) attempts: Option<u32>,
}

impl System {
    /// Reads files, which are small and local.
    pub(crate) fn read() -> io::Result<Self> {
        let (servers, options) = name_servers()?;
        Ok(Self::new(servers, options, hosts()))
    }

    /// The configuration of a system without any: a name server on this machine, as glibc assumes.
    pub(crate) fn absent() -> Self {
        Self::new(Vec::new(), SystemOptions::default(), hosts())
    }

    pub(crate) fn new(mut servers: Vec<SocketAddr>, options: SystemOptions, hosts: Hosts) -> Self {
        if servers.is_empty() {
            servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS_PORT));
        }
        Self { servers, options, hosts }
    }
}

#[cfg(all(unix, not(target_os = "android")))]
fn name_servers() -> io::Result<(Vec<SocketAddr>, SystemOptions)> {
    let bytes = fs::read("/etc/resolv.conf")?;
    Ok(parse(&String::from_utf8_lossy(&bytes)))
}

#[cfg(not(all(unix, not(target_os = "android"))))]
fn name_servers() -> io::Result<(Vec<SocketAddr>, SystemOptions)> {
    use hickory_resolver::system_conf::read_system_conf;
    let (config, _options) = read_system_conf().map_err(io::Error::other)?;
    let servers = config.name_servers().iter();
    let servers = servers.map(|server| SocketAddr::new(server.ip, DNS_PORT)).collect();
    Ok((servers, SystemOptions::default()))
}

/// Reads resolv.conf as glibc does: every line or word that is not understood is skipped.
///
/// The resolv-conf crate loses a line with any byte that is not UTF-8, and the difference between
/// an option that is absent and one that has glibc's default.
fn parse(text: &str) -> (Vec<SocketAddr>, SystemOptions) {
    let (mut servers, mut options) = (Vec::new(), SystemOptions::default());
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                let server = words.next().and_then(server);
                servers.extend(server.filter(|server| !servers.contains(server)));
            }
            Some("options") => words.for_each(|word| options.read(word)),
            _ => {}
        }
    }
    servers.truncate(MAX_SERVERS);
    (servers, options)
}

/// The address of a `nameserver` line, or none if no packet can be sent to it.
fn server(word: &str) -> Option<SocketAddr> {
    let (address, has_scope) = match word.split_once('%') {
        Some((address, _)) => (address, true),
        None => (word, false),
    };
    match address.parse().ok()? {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Some((Ipv4Addr::LOCALHOST, DNS_PORT).into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Some((Ipv6Addr::LOCALHOST, DNS_PORT).into()),
        // getaddrinfo converts the interface's name, and makes no query for a numeric address.
        IpAddr::V6(_) if has_scope => (word, DNS_PORT).to_socket_addrs().ok()?.next(),
        IpAddr::V6(ip) if ip.is_unicast_link_local() => None,
        ip => Some(SocketAddr::new(ip, DNS_PORT)),
    }
}

impl SystemOptions {
    /// `use-vc` is `usevc` on FreeBSD and `tcp` on OpenBSD.
    fn read(&mut self, word: &str) {
        let (key, value) = word.split_once(':').unwrap_or((word, ""));
        match (key, value.parse::<u32>()) {
            ("use-vc" | "usevc" | "tcp", _) => self.use_tcp = true,
            ("timeout", Ok(n)) => self.timeout = Some(Duration::from_secs(n.clamp(1, 30).into())),
            ("attempts", Ok(n)) => self.attempts = Some(n.clamp(1, 5)),
            _ => {}
        }
    }
}

/// Not every system has the file; its comments may be in any encoding.
#[cfg(unix)]
fn hosts() -> Hosts {
    let bytes = fs::read("/etc/hosts").unwrap_or_default();
    parse_hosts(&String::from_utf8_lossy(&bytes))
}

#[cfg(not(unix))]
fn hosts() -> Hosts {
    Hosts::from_system().unwrap_or_default()
}

/// Leaves out the lines about which hickory would log a warning every second.
fn parse_hosts(text: &str) -> Hosts {
    let has_address = |line: &&str| {
        line.split_whitespace().next().is_some_and(|word| word.parse::<IpAddr>().is_ok())
    };
    let lines: Vec<&str> = text.lines().filter(has_address).collect();
    let mut hosts = Hosts::default();
    if let Err(error) = hosts.read_hosts_conf(lines.join("\n").as_bytes()) {
        tracing::debug!(%error, "hosts file not read completely");
    }
    hosts
}

/// glibc's and musl's MAXNS.
const MAX_SERVERS: usize = 3;
const DNS_PORT: u16 = 53;

#[cfg(all(test, unix))]
mod tests {
    use hickory_resolver::proto::{
        op::Query,
        rr::{Name, RecordType},
    };

    use super::*;

    fn servers(text: &str) -> Vec<String> {
        parse(text).0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn odd_lines_and_unknown_options_are_skipped() {
        let rows: [(&str, &[&str]); 13] = [
            ("search (none)\nnameserver 10.0.0.1", &["10.0.0.1:53"]),
            ("domain a..b\nnameserver 10.0.0.1", &["10.0.0.1:53"]),
            ("sortlist x/y\nlookup file bind\nnameserver 10.0.0.1", &["10.0.0.1:53"]),
            ("nameserver 10.0.0.1 # first\nnameserver fd00::1;x", &["10.0.0.1:53", "[fd00::1]:53"]),
            ("# nameserver 10.0.0.1\n;nameserver 10.0.0.2\nnameserver 10.0.0.3", &["10.0.0.3:53"]),
            ("nameserver\nnameserver dns.example\nnameserver 10.0.0.1", &["10.0.0.1:53"]),
            ("nameserver 10.0.0.1 10.0.0.2\r\nnameserver 10.0.0.1", &["10.0.0.1:53"]),
            ("\tnameserver\t10.0.0.1", &["10.0.0.1:53"]),
            ("nameserver 0.0.0.0\nnameserver ::", &["127.0.0.1:53", "[::1]:53"]),
            ("nameserver fe80::1\nnameserver fe80::1%none\nnameserver 10.0.0.1", &["10.0.0.1:53"]),
            (
                "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4",
                &["10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"],
            ),
            ("nameserver 10.0.0.1 # b\u{fffd}ro", &["10.0.0.1:53"]),
            ("", &[]),
        ];
        for (text, expected) in rows {
            assert_eq!(servers(text), expected, "{text:?}");
        }
    }

    #[test]
    fn options_that_matter_are_read_and_clamped() {
        let seconds = |n| Some(Duration::from_secs(n));
        let rows = [
            ("options ndots:5 rotate edns0 trust-ad x:y:z", (false, None, None)),
            ("options use-vc timeout:3 attempts:4", (true, seconds(3), Some(4))),
            ("options usevc\noptions timeout:99 attempts:99", (true, seconds(30), Some(5))),
            ("options tcp timeout:0 attempts:0", (true, seconds(1), Some(1))),
            ("options timeout: attempts:x timeout:-1", (false, None, None)),
        ];
        for (text, (use_tcp, timeout, attempts)) in rows {
            let expected = SystemOptions { use_tcp, timeout, attempts };
            assert_eq!(parse(text).1, expected, "{text:?}");
        }
    }

    /// The first interface is the loopback one, on Linux and on macOS.
    #[test]
    fn scope_of_a_link_local_server_is_kept() {
        let name = if cfg!(target_os = "linux") { "lo" } else { "lo0" };
        for scope in [name, "1"] {
            let (servers, _) = parse(&format!("nameserver fe80::1%{scope}"));
            let [SocketAddr::V6(server)] = servers[..] else { panic!("{servers:?}") };
            assert_eq!((server.to_string().as_str(), server.scope_id()), ("[fe80::1%1]:53", 1));
        }
    }

    #[test]
    fn system_without_name_servers_has_one_on_this_machine() {
        let system = System::new(Vec::new(), SystemOptions::default(), Hosts::default());
        assert_eq!(system.servers, [SocketAddr::from(([127, 0, 0, 1], 53))]);
        assert_eq!(System::absent().servers, system.servers);
    }

    #[test]
    fn hosts_file_is_read_beside_lines_that_are_not_understood() {
        let text = "# b\u{fffd}ro\nfe80::1%lo0 localhost\nx y\n10.0.0.1 a.example b.example # c";
        let hosts = parse_hosts(text);
        for name in ["a.example.", "b.example."] {
            let query = Query::query(Name::from_ascii(name).expect("a name"), RecordType::A);
            assert!(hosts.lookup_static_host(&query).is_some(), "{name}");
        }
    }
}
