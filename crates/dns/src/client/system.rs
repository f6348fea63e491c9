//! The name servers and the hosts file of the system.

mod options;
#[cfg(all(unix, not(target_os = "android")))]
mod resolv_conf;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use hickory_resolver::Hosts;

use self::options::DNS_PORT;
pub(crate) use self::options::SystemOptions;
#[cfg(all(unix, not(target_os = "android")))]
use self::resolv_conf::name_servers;

/// The system's configuration.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) options: SystemOptions,
    pub(crate) hosts: Hosts,
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

#[cfg(any(not(unix), target_os = "android"))]
fn name_servers() -> io::Result<(Vec<SocketAddr>, SystemOptions)> {
    use hickory_resolver::system_conf::read_system_conf;
    let (config, _options) = read_system_conf().map_err(io::Error::other)?;
    let servers = config.name_servers().iter();
    let servers = servers.map(|server| SocketAddr::new(server.ip, DNS_PORT)).collect();
    Ok((servers, SystemOptions::default()))
}

/// Not every system has the file; its comments may be in any encoding.
#[cfg(unix)]
fn hosts() -> Hosts {
    let bytes = std::fs::read("/etc/hosts").unwrap_or_default();
    parse_hosts(&String::from_utf8_lossy(&bytes))
}

#[cfg(not(unix))]
fn hosts() -> Hosts {
    Hosts::from_system().unwrap_or_default()
}

/// Leaves out the lines about which hickory would log a warning every second.
#[cfg(unix)]
fn parse_hosts(text: &str) -> Hosts {
    let has_address = |line: &&str| {
        let address = line.split_whitespace().next().map(str::parse::<std::net::IpAddr>);
        address.is_some_and(|address| address.is_ok())
    };
    let lines: Vec<&str> = text.lines().filter(has_address).collect();
    let mut hosts = Hosts::default();
    if let Err(error) = hosts.read_hosts_conf(lines.join("\n").as_bytes()) {
        tracing::debug!(%error, "hosts file not read completely");
    }
    hosts
}

#[cfg(all(test, unix))]
mod tests {
    use hickory_resolver::proto::{
        op::Query,
        rr::{Name, RecordType},
    };

    use super::*;

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
