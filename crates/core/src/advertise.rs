use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
};

use crate::{AddressPolicy, Error, ErrorKind, Instance, Registration, Result};

/// The address that a server registers.
///
/// ```
/// use tower_sd::discovery::AdvertiseAddress;
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
    /// The address of the listener; an error for a wildcard. Of a unix socket its path.
    BindAddress,
    /// A given host, and a given port where that of the listener is not reachable.
    ///
    /// The published port of a container is one.
    Explicit {
        /// A host name or an IP address without brackets.
        host: String,
        /// `None`: the port of the listener.
        port: Option<u16>,
    },
    /// The local address from which packets to the registry leave.
    ///
    /// Right wherever clients reach the server through the network through which it reaches the
    /// registry. Nothing is sent to find it out.
    RouteTo(SocketAddr),
}

impl AdvertiseAddress {
    /// Returns the instance to register for a server that listens on `listen`.
    ///
    /// # Errors
    ///
    /// `Config` for an address that no client can connect to; `Unavailable` without a route to the
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

    /// Returns the instance to register for a server that listens on a unix socket.
    ///
    /// Its host is `unix:/path`, which clients accept with
    /// [`AddressPolicy::unix_sockets`](crate::AddressPolicy::unix_sockets) only. The
    /// [`Explicit`](Self::Explicit) address is that of a proxy in front of the socket.
    ///
    /// # Errors
    ///
    /// `Config` for a path that is relative or not in UTF-8, and where a port is missing.
    pub fn unix_socket(&self, path: &Path) -> Result<Instance> {
        let invalid = |message: String| {
            Error::new(ErrorKind::Config, "core", "advertise").with_message(message)
        };
        match self {
            Self::BindAddress => match path.to_str().filter(|_| path.is_absolute()) {
                Some(path) => Ok(Instance::new(format!("unix:{path}"), 0)),
                None => Err(invalid(format!("{path:?} is no absolute path in UTF-8"))),
            },
            Self::Explicit { host, port: Some(port) } => {
                let instance = Instance::new(host, *port);
                reachable(&instance)?;
                Ok(instance)
            }
            Self::Explicit { port: None, .. } | Self::RouteTo(_) => {
                Err(invalid(format!("the unix socket {path:?} has no port; advertise one")))
            }
        }
    }
}

/// Refuses an address that no client can connect to: etcd, ZooKeeper and Eureka would accept it.
pub(crate) fn reachable(instance: &Instance) -> Result<()> {
    AddressPolicy::any().unix_sockets().check(instance).map_err(|refused| {
        Error::new(ErrorKind::Config, "core", "register")
            .with_instance(instance.id().clone())
            .with_message(format!(
                "{refused}; advertise an address that clients can reach \
                 (AdvertiseAddress::Explicit or AdvertiseAddress::RouteTo)"
            ))
    })
}

/// Logs an address that clients refuse unless their policy allows it: link-local, a unix socket.
pub(crate) fn warn_of_refusal(registration: &Registration) {
    let instance = registration.instance();
    if let Err(refused) = AddressPolicy::default().check(instance) {
        tracing::warn!(
            service = registration.service(),
            %instance,
            reason = refused.reason,
            "address refused by clients with the default address policy"
        );
    }
}

/// Connecting a UDP socket sends nothing: the kernel looks up the route and binds the source
/// address.
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
    fn wildcard_is_refused_with_its_remedy() {
        let error =
            AdvertiseAddress::BindAddress.instance(listen("0.0.0.0:80")).expect_err("wildcard");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("AdvertiseAddress::Explicit"), "{error}");
    }

    #[test]
    fn unix_socket_is_advertised_by_its_path_or_a_proxy() {
        let path = Path::new("/run/orders.sock");
        let instance = AdvertiseAddress::BindAddress.unix_socket(path).expect("absolute");
        assert_eq!((instance.host(), instance.port()), ("unix:/run/orders.sock", 0));
        reachable(&instance).expect("may be registered");
        AdvertiseAddress::BindAddress.unix_socket(Path::new("orders.sock")).expect_err("relative");
        let proxy = |port| AdvertiseAddress::Explicit { host: "a.example".into(), port };
        let instance = proxy(Some(80)).unix_socket(path).expect("reachable");
        assert_eq!(instance.to_string(), "a.example:80");
        proxy(None).unix_socket(path).expect_err("no port");
        let registry = AdvertiseAddress::RouteTo(listen("127.0.0.1:8500"));
        registry.unix_socket(path).expect_err("no port");
    }

    #[test]
    fn explicit_host_and_port_win() {
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
