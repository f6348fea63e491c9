//! The name servers and options of `/etc/resolv.conf`.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    time::Duration,
};

use super::options::{DNS_PORT, SystemOptions};

/// Reads `/etc/resolv.conf`.
pub(super) fn name_servers() -> io::Result<(Vec<SocketAddr>, SystemOptions)> {
    let bytes = fs::read("/etc/resolv.conf")?;
    Ok(parse(&String::from_utf8_lossy(&bytes)))
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

/// glibc's and musl's MAXNS.
const MAX_SERVERS: usize = 3;

#[cfg(test)]
mod tests {
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
}
