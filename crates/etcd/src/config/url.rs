use std::{str::FromStr, time::Duration};

use tower_sd_core::{Error, Result};

use super::{EtcdConfig, Tls, refused};

/// Settings from a URL: `etcd://h1:2379,h2,[::1]:2379/prefix?ttl=15s`.
///
/// The port is 2379 unless given, the prefix is the default one without a path. `etcds://` stands for
/// [`Tls::SystemRoots`]. User and password are refused, because URLs end up in logs: set [`EtcdConfig::user`].
/// `ttl`, `request_timeout` and `connect_timeout` take `ms` or `s`; everything else behind the `?` is refused.
///
/// ```
/// use tower_sd_etcd::EtcdConfig;
///
/// let config: EtcdConfig = "etcd://10.0.0.1,10.0.0.2:2380/services?ttl=30s".parse()?;
/// assert_eq!(config.endpoints, ["10.0.0.1:2379", "10.0.0.2:2380"]);
/// assert_eq!(config.prefix, "services");
/// # Ok::<(), tower_sd_core::Error>(())
/// ```
impl FromStr for EtcdConfig {
    type Err = Error;

    /// By hand, because several hosts with ports are no authority to a URL library.
    fn from_str(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let tls = match scheme {
            "etcd" => Tls::Off,
            "etcds" => Tls::SystemRoots,
            _ => return Err(refused("a URL of etcd begins with etcd:// or etcds://")),
        };
        if rest.contains('@') {
            let message = "a URL has user information; use EtcdConfig::user, which is not logged";
            return Err(refused(message));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut config = Self::new(hosts.split(',').map(with_port)).tls(tls);
        if !path.is_empty() {
            config.prefix = path.to_owned();
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let setting = match key {
                "ttl" => &mut config.ttl,
                "request_timeout" => &mut config.request_timeout,
                "connect_timeout" => &mut config.connect_timeout,
                _ => return Err(refused(format!("a URL of etcd has no setting {key:?}"))),
            };
            *setting = duration(value)
                .ok_or_else(|| refused(format!("{key}={value} is not like 15s or 500ms")))?;
        }
        // Says what is wrong now, not when a client is made; that shuffles the endpoints.
        config.clone().validated()?;
        Ok(config)
    }
}

fn with_port(host: &str) -> String {
    let has_port = match host.rsplit_once(']') {
        Some((_, behind)) => behind.starts_with(':'),
        None => host.contains(':'),
    };
    if has_port || host.is_empty() { host.to_owned() } else { format!("{host}:{DEFAULT_PORT}") }
}

fn duration(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(number) => number.parse().ok().map(Duration::from_millis),
        None => {
            let number = text.strip_suffix('s')?;
            number.parse().ok().map(Duration::from_secs)
        }
    }
}

/// IANA's, for etcd clients.
const DEFAULT_PORT: u16 = 2379;

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(url: &str) -> Vec<String> {
        let config: EtcdConfig = url.parse().expect(url);
        config.endpoints
    }

    #[test]
    fn several_hosts_have_ports_of_their_own() {
        assert_eq!(endpoints("etcd://a"), ["a:2379"]);
        assert_eq!(
            endpoints("etcd://a:1,b,[::1],[::1]:2/"),
            ["a:1", "b:2379", "[::1]:2379", "[::1]:2"]
        );
    }

    #[test]
    fn path_and_query_are_settings() {
        let url = "etcds://a/my/prefix?ttl=1500ms&request_timeout=3s";
        let config: EtcdConfig = url.parse().expect("good");
        assert_eq!(config.prefix, "my/prefix");
        assert_eq!(config.ttl, Duration::from_millis(1500));
        assert_eq!(config.request_timeout, Duration::from_secs(3));
        assert!(matches!(config.tls, Tls::SystemRoots));
        let plain: EtcdConfig = "etcd://a".parse().expect("good");
        assert_eq!(plain.prefix, "tower-sd");
    }

    #[test]
    fn what_is_no_url_of_etcd_is_refused() {
        for url in [
            "",
            "a:1",
            "http://a",
            "etcd://",
            "etcd:///p",
            "etcd://a,,b",
            "etcd://a:b",
            "etcd://a?ttl=5",
            "etcd://a?ttl=",
            "etcd://a?colour=red",
            "etcd://a?ttl=0s",
        ] {
            assert!(url.parse::<EtcdConfig>().is_err(), "{url}");
        }
    }

    /// T12.
    #[test]
    fn a_password_in_a_url_is_refused_with_the_remedy_and_not_repeated() {
        let error = "etcd://root:hunter2@a:1/x".parse::<EtcdConfig>().expect_err("refused");
        assert!(error.to_string().contains("EtcdConfig::user"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
