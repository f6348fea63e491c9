use std::net::SocketAddr;

use tower_sd_core::{RegistryUrl, Result};

use crate::{BACKEND, DnsConfig, Transport};

impl DnsConfig {
    /// Reads the settings from a URL.
    ///
    /// For example `dns:///`, or `dns://10.0.0.2,10.0.0.3:5353?tcp=true`.
    ///
    /// The hosts are the name servers, with port 53 unless given; without any, those of the system.
    /// The service is not part of the URL. Options, in the grammar of [`RegistryUrl`]:
    ///
    /// - `tcp=true`: [`Transport::TcpFirst`].
    /// - `timeout`: the field of that name.
    /// - `min=5s` and `max=5m`: the bounds of the time between lookups.
    /// - `retention=5m`: the least [`removal_wait`](tower_sd_core::RegistryConfig::removal_wait),
    ///   as [`Query::retention`](crate::Query::retention) of each service.
    ///
    /// ```
    /// use tower_sd::dns::{DnsConfig, Transport};
    ///
    /// let config = DnsConfig::from_url("dns://127.0.0.1:8600?tcp=true")?;
    /// assert_eq!(config.servers, ["127.0.0.1:8600".parse().expect("an address")]);
    /// assert_eq!(config.transport, Some(Transport::TcpFirst));
    /// # Ok::<(), tower_sd::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Config`, with the part of the URL that is malformed.
    pub fn from_url(url: &str) -> Result<Self> {
        let mut url = RegistryUrl::parse(BACKEND, url)?;
        url.no_path()?;
        let servers =
            url.addresses(DNS_PORT).into_iter().map(|server| server_address(&url, &server));
        let mut config = Self::new(servers.collect::<Result<Vec<_>>>()?);
        config.transport = url.flag("tcp")?.map(|tcp| match tcp {
            true => Transport::TcpFirst,
            false => Transport::UdpFirst,
        });
        config.timeout = url.duration("timeout")?;
        let registry = &mut config.registry;
        let follow = &mut registry.follow;
        follow.min_refresh = url.duration("min")?.unwrap_or(follow.min_refresh);
        follow.max_refresh = url.duration("max")?.unwrap_or(follow.max_refresh);
        let (min, max) = (follow.min_refresh, follow.max_refresh);
        if min > max {
            return Err(url.refusal(format!("option min: {min:?} is longer than max, {max:?}")));
        }
        if let Some(retention) = url.duration("retention")? {
            registry.removal_wait = registry.removal_wait.max(retention);
        }
        url.finish()?;
        Ok(config)
    }
}

fn server_address(url: &RegistryUrl, server: &str) -> Result<SocketAddr> {
    let address = server.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    address.ok_or_else(|| {
        let instead = "the service is named by instancer(…)";
        url.refusal(format!("{server:?} is not the IP address of a name server; {instead}"))
    })
}

const DNS_PORT: u16 = 53;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn url_has_room_for_every_setting() {
        let url = "dns://127.0.0.1:5353,[::1]?tcp=true&timeout=1s&min=250ms&max=6m&retention=1h";
        let config = DnsConfig::from_url(url).expect("well formed");
        let servers: Vec<String> = config.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["127.0.0.1:5353", "[::1]:53"]);
        assert_eq!(config.transport, Some(Transport::TcpFirst));
        assert_eq!(config.timeout, Some(Duration::from_secs(1)));
        assert_eq!(config.registry.removal_wait, Duration::from_secs(3600));
        assert_eq!(config.registry.follow.min_refresh, Duration::from_millis(250));
        assert_eq!(config.registry.follow.max_refresh, Duration::from_secs(360));
        let system = DnsConfig::from_url("dns:///").expect("well formed");
        assert_eq!((system.servers, system.transport), (Vec::new(), None));
    }

    #[test]
    fn malformed_part_is_named_with_its_remedy() {
        for (url, expected) in [
            ("http://a", "the scheme is \"http\", not dns"),
            ("dns://a.example:80", "\"a.example:80\" is not the IP address of a name server"),
            ("dns://127.0.0.1:0", "is not the IP address of a name server"),
            ("dns:///orders", "instancer(\"orders\")"),
            ("dns:///?tcp=first", "option tcp: \"first\" is neither true nor false"),
            ("dns:///?min=5", "option min: \"5\" is not a time"),
            ("dns:///?min=5m&max=5s", "option min: 300s is longer than max, 5s"),
            ("dns:///?ttl=5s", "the options are max, min, retention, tcp, timeout"),
        ] {
            let error = DnsConfig::from_url(url).expect_err(url).to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.starts_with("dns configure: "), "{error}");
        }
    }
}
