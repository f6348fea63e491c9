//! From a `--registry` URL to the library's two traits: the one place that knows which backends there are.
//!
//! To add a backend: a line in [`Backend::parse`], and an arm in each of [`instancer`] and [`registrar`]; behind a crate
//! feature of this example where its dependencies are heavy.

use std::{sync::Arc, time::Duration};

use tower_sd::{BoxError, FixedInstancer, Instance, Instancer, Registrar};
use tower_sd_consul::{Consul, ConsulConfig};
#[cfg(feature = "dns")]
use tower_sd_dns::DnsInstancer;
#[cfg(feature = "etcd")]
use tower_sd_etcd::{EtcdClient, EtcdConfig, EtcdInstancer, EtcdRegistrar};

/// What a URL names.
enum Backend {
    /// `static:127.0.0.1:8081,[::1]:8082`: no registry, the addresses are known.
    Static(Vec<Instance>),
    /// `consul://127.0.0.1:8500`; with a path and options, another service or some of its instances.
    Consul(Box<ConsulConfig>),
    /// `dns+srv://_http._tcp.example.org`, `dns://example.org:8080`. Whose records these are is said by the URL, not by the
    /// service; and they are somebody else's to write.
    #[cfg(feature = "dns")]
    Dns(String),
    /// `etcd://h1:2379,h2:2379/prefix/`; what follows the last slash is another service.
    #[cfg(feature = "etcd")]
    Etcd(EtcdConfig, Option<String>),
}

/// Follows `service` in the registry that `url` names.
pub(crate) fn instancer(url: &str, service: &str) -> Result<Box<dyn Instancer>, BoxError> {
    match Backend::parse(url)? {
        Backend::Static(instances) => Ok(Box::new(FixedInstancer::new(instances))),
        Backend::Consul(config) => Ok(Box::new(Consul::new(*config)?.instancer(service))),
        #[cfg(feature = "dns")]
        Backend::Dns(url) => Ok(Box::new(DnsInstancer::from_url(&url)?)),
        #[cfg(feature = "etcd")]
        Backend::Etcd(config, other) => {
            let service = other.unwrap_or_else(|| service.to_owned());
            Ok(Box::new(EtcdInstancer::new(&EtcdClient::new(config)?, service)))
        }
    }
}

/// The registry that `url` names, as seen by a server; `None` when there is nothing to announce.
pub(crate) fn registrar(url: &str) -> Result<Option<Arc<dyn Registrar>>, BoxError> {
    registrar_of(Backend::parse(url)?)
}

/// The same, for servers that the registry forgets `ttl` after they have died.
pub(crate) fn registrar_with_ttl(
    url: &str,
    ttl: Duration,
) -> Result<Option<Arc<dyn Registrar>>, BoxError> {
    match Backend::parse(url)? {
        Backend::Consul(config) => Ok(Some(Arc::new(Consul::new(config.ttl(ttl))?))),
        #[cfg(feature = "etcd")]
        Backend::Etcd(config, other) => registrar_of(Backend::Etcd(config.ttl(ttl), other)),
        other => registrar_of(other),
    }
}

fn registrar_of(backend: Backend) -> Result<Option<Arc<dyn Registrar>>, BoxError> {
    match backend {
        Backend::Static(_) => Ok(None),
        Backend::Consul(config) => Ok(Some(Arc::new(Consul::new(*config)?))),
        #[cfg(feature = "dns")]
        Backend::Dns(_) => {
            Err("DNS is only read: give the server another registry, and its address to the zone"
                .into())
        }
        #[cfg(feature = "etcd")]
        Backend::Etcd(config, _) => {
            Ok(Some(Arc::new(EtcdRegistrar::new(&EtcdClient::new(config)?))))
        }
    }
}

impl Backend {
    fn parse(url: &str) -> Result<Self, BoxError> {
        match url.split_once(':') {
            Some(("static", addresses)) => {
                let listed = addresses.split(',').filter(|address| !address.is_empty());
                let instances: Result<Vec<_>, _> = listed.map(instance).collect();
                Ok(Self::Static(instances?))
            }
            Some(("consul", _)) => Ok(Self::Consul(Box::new(ConsulConfig::from_url(url)?))),
            #[cfg(feature = "dns")]
            Some(("dns" | "dns+srv", _)) => Ok(Self::Dns(url.to_owned())),
            #[cfg(not(feature = "dns"))]
            Some(("dns" | "dns+srv", _)) => {
                Err("this program was built without dns; build it with --features dns".into())
            }
            #[cfg(feature = "etcd")]
            Some(("etcd", _)) => {
                let (config, service) = EtcdConfig::from_url(url)?;
                Ok(Self::Etcd(config, service))
            }
            #[cfg(not(feature = "etcd"))]
            Some(("etcd", _)) => {
                Err("this program was built without etcd; build it with --features etcd".into())
            }
            Some(("memory", _)) => {
                Err("memory: lives inside one process, see `arithmetic demo`".into())
            }
            _ => Err(format!("{url:?} is no registry; known are {KNOWN}").into()),
        }
    }
}

/// Parses `host:port`, an IPv6 address in brackets.
pub(crate) fn instance(address: &str) -> Result<Instance, BoxError> {
    let wrong = || format!("{address:?} is not HOST:PORT");
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match port.parse() {
        Ok(port) if port != 0 && !host.is_empty() => Ok(Instance::new(host, port)),
        _ => Err(wrong().into()),
    }
}

const KNOWN: &str = "static:HOST:PORT,HOST:PORT, consul://HOST:PORT, dns+srv://NAME, dns://HOST:PORT and \
                     etcd://HOST:PORT,HOST:PORT/PREFIX/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_lists_addresses() {
        let instancer = instancer("static:127.0.0.1:8081,[::1]:8082,a.example:80", "x");
        let snapshot = instancer.expect("three addresses").subscribe().snapshot();
        let addresses: Vec<_> = snapshot.instances().iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1:8081", "[::1]:8082", "a.example:80"]);
    }

    #[test]
    fn what_cannot_be_understood_is_said_in_a_sentence() {
        let complaint = |url| instancer(url, "x").map(drop).expect_err("refused").to_string();
        assert_eq!(complaint("static:8081"), "\"8081\" is not HOST:PORT");
        assert_eq!(complaint("static:a:0"), "\"a:0\" is not HOST:PORT");
        assert!(complaint("consul://h?tga=x").contains("unknown option"));
        #[cfg(feature = "etcd")]
        assert!(complaint("etcd://h1,h2/p/s?tll=5s").contains("unknown option"));
        assert!(complaint("carrier-pigeon://loft").contains("is no registry"));
        assert!(complaint("memory:").contains("arithmetic demo"));
    }
}
