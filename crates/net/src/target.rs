use std::{fmt, path::PathBuf};

/// The other end of a connection.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Target {
    /// A host name or an IP address (without brackets), and a port.
    Host {
        /// The name or address.
        host: String,
        /// The TCP port.
        port: u16,
    },
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl Target {
    /// Names a host, whose IPv6 address may be in brackets, and a port.
    pub fn host(host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        Self::Host { host: inner.map(str::to_owned).unwrap_or(host), port }
    }

    /// Names a unix socket by its path.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::Unix(path.into())
    }

    /// The `host:port` of URLs and `Host` headers; `localhost` for a unix socket.
    ///
    /// Without the scope of an IPv6 address, which is of this system (RFC 6874 §1).
    pub fn authority(&self) -> String {
        match self {
            Self::Host { host, port } => match host.split_once('%') {
                Some((address, _scope)) => Self::host(address, *port).to_string(),
                None => self.to_string(),
            },
            Self::Unix(_) => "localhost".to_owned(),
        }
    }

    /// The name that a certificate is checked against unless another one is configured.
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "certificates are TLS's"))]
    pub(crate) fn server_name(&self) -> &str {
        match self {
            // Without the scope, which is of this system.
            Self::Host { host, .. } => host.split_once('%').map_or(host, |(address, _)| address),
            Self::Unix(_) => "localhost",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // IPv6, which may have a scope.
            Self::Host { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_of_ipv6_have_brackets_and_no_scope() {
        for (host, shown, authority) in [
            ("a.example", "a.example:80", "a.example:80"),
            ("192.0.2.1", "192.0.2.1:80", "192.0.2.1:80"),
            ("[2001:db8::1]", "[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("fe80::1%eth0", "[fe80::1%eth0]:80", "[fe80::1]:80"),
        ] {
            let target = Target::host(host, 80);
            assert_eq!(
                (target.to_string().as_str(), target.authority().as_str()),
                (shown, authority)
            );
            assert!(!target.server_name().contains('%'), "{target}");
        }
    }
}
