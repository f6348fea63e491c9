//! Instancers by URL.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tower_sd_core::{Error, FollowConfig, Result};
use url::form_urlencoded;

use crate::{BACKEND, DnsConfig, Query, Transport, query::config};

/// The parts of a URL.
#[derive(Debug)]
pub(crate) struct DnsUrl {
    pub(crate) config: DnsConfig,
    pub(crate) query: Query,
    pub(crate) follow: FollowConfig,
}

pub(crate) fn parse(text: &str) -> Result<DnsUrl> {
    let (rest, settings) = text.split_once('?').unwrap_or((text, ""));
    let query = match rest.split_once("://") {
        Some(("dns+srv", name)) => services(name.trim_end_matches('/'))?,
        Some(("dns", host)) => host_and_port(host.trim_end_matches('/'))?,
        _ => {
            return Err(config(format!("{text:?} is not of DNS: start with dns+srv:// or dns://")));
        }
    };
    let mut url =
        DnsUrl { config: DnsConfig::default(), query, follow: FollowConfig::new(BACKEND) };
    for (key, value) in form_urlencoded::parse(settings.as_bytes()) {
        set(&mut url, &key, &value)?;
    }
    let (min, max) = (url.follow.min_refresh, url.follow.max_refresh);
    if min > max {
        let message = format!(
            "min={min:?} is longer than max={max:?}: min is the shortest time between two questions, max the longest"
        );
        return Err(config(message));
    }
    Ok(url)
}

fn services(name: &str) -> Result<Query> {
    if let Some((server, name)) = name.split_once('/') {
        return Err(config(format!(
            "{server:?} stands where the name does; a name server is a setting: write dns+srv://{name}?server={server}"
        )));
    }
    if let Some((name, port)) = name.rsplit_once(':') {
        return Err(config(format!(
            "{name:?} has the port {port:?}, but SRV records bring their own: leave it away, or use dns://"
        )));
    }
    Query::srv(name)
}

fn host_and_port(text: &str) -> Result<Query> {
    let Some((host, port)) = text.rsplit_once(':') else {
        let message = format!("{text:?} has no port, and addresses bring none: write {text}:8080");
        return Err(config(message));
    };
    let port = port.parse::<u16>().map_err(|cause| {
        let message = format!("{port:?} of {text:?} is not a port; give a number up to 65535");
        config(message).with_source(cause)
    })?;
    Query::host(host.trim_matches(['[', ']']), port)
}

fn set(url: &mut DnsUrl, key: &str, value: &str) -> Result<()> {
    match (key, value) {
        ("server", _) => url.config.servers.push(server(value)?),
        ("tcp", "first") => url.config.transport = Some(Transport::TcpFirst),
        ("min", _) => url.follow.min_refresh = duration(key, value)?,
        ("max", _) => url.follow.max_refresh = duration(key, value)?,
        ("retention", _) => url.query.retention = duration(key, value)?,
        ("tcp", _) => return Err(refused(key, value, "write tcp=first, or leave it away")),
        _ => {
            return Err(refused(
                key,
                value,
                "the settings are server, tcp, min, max and retention",
            ));
        }
    }
    Ok(())
}

fn server(value: &str) -> Result<SocketAddr> {
    let with_port = value.parse::<SocketAddr>();
    let without = value.trim_matches(['[', ']']).parse::<IpAddr>();
    match (with_port, without) {
        (Ok(server), _) if server.port() != 0 => Ok(server),
        (_, Ok(ip)) => Ok(SocketAddr::new(ip, DNS_PORT)),
        _ => Err(refused("server", value, "give an IP address, with or without a port")),
    }
}

/// `250ms`, `5s`, `5m`, `1h`.
fn duration(key: &str, value: &str) -> Result<Duration> {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(digits);
    let unit = match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => Duration::ZERO,
    };
    let duration = number.parse().ok().and_then(|number| unit.checked_mul(number));
    duration
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| refused(key, value, "give a time above zero, as 250ms, 5s, 5m or 1h"))
}

fn refused(key: &str, value: &str, remedy: &str) -> Error {
    config(format!("the setting {key}={value} is not understood: {remedy}"))
}

const DNS_PORT: u16 = 53;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::{Kind, shown};

    #[test]
    fn url_has_room_for_every_setting() {
        let text = "dns+srv://_http._tcp.example.org?server=127.0.0.1:5353&server=[::1]&tcp=first&min=250ms&max=5m&retention=1h";
        let url = parse(text).expect("well formed");
        assert_eq!(shown(&url.query.name), "_http._tcp.example.org");
        assert_eq!(url.query.kind, Kind::Srv);
        let servers: Vec<String> = url.config.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["127.0.0.1:5353", "[::1]:53"]);
        assert_eq!(url.config.transport, Some(Transport::TcpFirst));
        assert_eq!(url.query.retention, Duration::from_secs(3600));
        assert_eq!(url.follow.min_refresh, Duration::from_millis(250));
        assert_eq!(url.follow.max_refresh, Duration::from_secs(300));
    }

    #[test]
    fn host_has_the_port_of_the_url() {
        let url = parse("dns://a.example:8080").expect("well formed");
        assert_eq!(
            (shown(&url.query.name).as_str(), url.query.kind),
            ("a.example", Kind::Host(8080))
        );
        assert_eq!(url.config.servers, []);
        assert_eq!(url.config.transport, None);
    }

    #[test]
    fn malformed_part_is_named_with_its_remedy() {
        let rows = [
            ("http://a", "\"http://a\" is not of DNS: start with dns+srv:// or dns://"),
            ("dns+srv://_a._tcp.b:80", "has the port \"80\", but SRV records bring their own"),
            ("dns+srv://", "\"\" is not a name of DNS"),
            ("dns://a.example", "has no port, and addresses bring none: write a.example:8080"),
            ("dns://a.example:99999", "\"99999\" of \"a.example:99999\" is not a port"),
            ("dns://[::1]:80", "\"::1\" is an address already"),
            ("dns://a:80?server=b", "server=b is not understood: give an IP address"),
            ("dns://a:80?server=127.0.0.1:0", "give an IP address"),
            ("dns://a:80?tcp=no", "tcp=no is not understood: write tcp=first"),
            ("dns://a:80?min=5", "min=5 is not understood: give a time above zero"),
            ("dns://a:80?max=0s", "max=0s is not understood"),
            ("dns://a:80?min=5m&max=5s", "min=300s is longer than max=5s: min is the shortest"),
            (
                "dns+srv://127.0.0.1:8600/users.service.consul",
                "write dns+srv://users.service.consul?server=127.0.0.1:8600",
            ),
            ("dns+srv://users..consul", "label 2 of 3 is empty"),
            ("dns://a:80?ttl=5", "the settings are server, tcp, min, max and retention"),
        ];
        for (text, expected) in rows {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.starts_with("dns configure: "), "{error}");
        }
    }
}
