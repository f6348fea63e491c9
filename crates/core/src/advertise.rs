use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::{AddressPolicy, Error, ErrorKind, Instance, Result};

/// Which address a server that listens on a wildcard tells the registry.
///
/// ```
/// use tower_sd_core::AdvertiseAddress;
///
/// let listen = "0.0.0.0:8081".parse()?;
/// let registry = "127.0.0.1:8500".parse()?;
/// let instance = AdvertiseAddress::RouteTo(registry).instance(listen)?;
/// assert_eq!(instance.to_string(), "127.0.0.1:8081");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AdvertiseAddress {
    /// The address it listens on; an error when that is a wildcard.
    BindAddress,
    /// This host, and this port where the one listened on is not the one to connect to (a container's published port).
    Explicit {
        /// A host name or an IP address without brackets.
        host: String,
        /// `None`: the port listened on.
        port: Option<u16>,
    },
    /// The local address from which packets to the registry leave: right wherever clients reach the server through the
    /// network through which it reaches the registry. Nothing is sent to find it out.
    RouteTo(SocketAddr),
}

impl AdvertiseAddress {
    /// The instance to register for a server that listens on `listen`.
    ///
    /// # Errors
    ///
    /// `Config` when the address could not be connected to by anybody; `Unavailable` when there is no route to the
    /// registry.
    pub fn instance(&self, listen: SocketAddr) -> Result<Instance> {
        let instance = match self {
            Self::BindAddress => Instance::new(listen.ip().to_string(), listen.port()),
            Self::Explicit { host, port } => Instance::new(host, port.unwrap_or(listen.port())),
            Self::RouteTo(registry) => {
                Instance::new(local_address_towards(*registry)?.to_string(), listen.port())
            }
        };
        reachable(&instance)?;
        Ok(instance)
    }
}

/// Refuses to announce what nobody could connect to: etcd, ZooKeeper and Eureka would take it.
pub(crate) fn reachable(instance: &Instance) -> Result<()> {
    AddressPolicy::any().check(instance).map_err(|refused| {
        Error::new(ErrorKind::Config, "core", "register")
            .with_instance(instance.id().clone())
            .with_message(format!(
                "{refused}; advertise an address that clients can reach (Advertise::Given or Advertise::RouteTo)"
            ))
    })
}

/// Connecting a UDP socket sends nothing: the kernel looks up the route and binds the source address.
fn local_address_towards(registry: SocketAddr) -> Result<IpAddr> {
    let any = match registry {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let route = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(registry)?;
        socket.local_addr()
    });
    route.map(|local| local.ip()).map_err(|error| {
        Error::new(ErrorKind::Unavailable, "core", "advertise")
            .with_message(format!("no route to the registry at {registry}"))
            .with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(address: &str) -> SocketAddr {
        address.parse().expect("an address")
    }

    #[test]
    fn wildcard_is_refused_with_the_remedy() {
        let error =
            AdvertiseAddress::BindAddress.instance(listen("0.0.0.0:80")).expect_err("wildcard");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("Advertise::Given"), "{error}");
    }

    #[test]
    fn given_host_and_port_win() {
        let given = AdvertiseAddress::Explicit { host: "a.example".into(), port: Some(443) };
        let instance = given.instance(listen("0.0.0.0:8443")).expect("reachable");
        assert_eq!(instance.to_string(), "a.example:443");
    }

    #[test]
    fn route_to_a_loopback_registry_is_loopback() {
        for (registry, expected) in [("127.0.0.1:8500", "127.0.0.1:80"), ("[::1]:2379", "[::1]:80")]
        {
            let route = AdvertiseAddress::RouteTo(listen(registry));
            let instance = route.instance(listen("0.0.0.0:80")).expect("a route");
            assert_eq!(instance.to_string(), expected);
        }
    }
}
