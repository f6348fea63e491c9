use tower_sd_core::{Registry, Result, Schemes};

/// Opens the registry that a URL names: `consul://127.0.0.1:8500`.
///
/// It connects when it is first used. [`schemes`] lists the schemes; the crate of each registry
/// documents the options that may follow a `?`. A URL never names the service.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tower_sd::Result<()> {
/// let registry = tower_sd::open("static://127.0.0.1:8081,127.0.0.1:8082")?;
/// let orders = registry.instancer("orders")?;
/// # drop(orders);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// `Config` for a scheme that is unknown or not compiled in, for an unknown option, and for
/// settings that cannot work.
pub fn open(url: &str) -> Result<Registry> {
    schemes().open(url)
}

/// Returns the schemes of the registries that are compiled in.
///
/// For programs that add their own.
///
/// ```
/// use tower_sd::{MemoryRegistry, schemes};
///
/// let memory = MemoryRegistry::new();
/// let schemes = schemes().with("memory", move |_url| Ok(memory.clone().into()));
/// assert_eq!(schemes.open("memory:")?.name(), "memory");
/// # Ok::<(), tower_sd::Error>(())
/// ```
pub fn schemes() -> Schemes {
    let schemes = Schemes::new();
    #[cfg(feature = "consul")]
    let schemes =
        schemes.with("consul", |url| tower_sd_consul::Consul::from_url(url).map(Registry::from));
    #[cfg(not(feature = "consul"))]
    let schemes = schemes.without("consul", "enable the feature `consul` of tower-sd");
    #[cfg(feature = "dns")]
    let schemes = schemes.with("dns", |url| tower_sd_dns::Dns::from_url(url).map(Registry::from));
    #[cfg(not(feature = "dns"))]
    let schemes = schemes.without("dns", "enable the feature `dns` of tower-sd");
    #[cfg(feature = "etcd")]
    let schemes =
        schemes.with("etcd", |url| tower_sd_etcd::Etcd::from_url(url).map(Registry::from));
    #[cfg(not(feature = "etcd"))]
    let schemes = schemes.without("etcd", "enable the feature `etcd` of tower-sd");
    #[cfg(feature = "eureka")]
    let schemes =
        schemes.with("eureka", |url| tower_sd_eureka::Eureka::from_url(url).map(Registry::from));
    #[cfg(not(feature = "eureka"))]
    let schemes = schemes.without("eureka", "enable the feature `eureka` of tower-sd");
    #[cfg(feature = "kubernetes")]
    let schemes = schemes.with("kubernetes", |url| {
        tower_sd_kubernetes::Kubernetes::from_url(url).map(Registry::from)
    });
    #[cfg(not(feature = "kubernetes"))]
    let schemes = schemes.without("kubernetes", "enable the feature `kubernetes` of tower-sd");
    #[cfg(feature = "zookeeper")]
    let schemes = schemes
        .with("zookeeper", |url| tower_sd_zookeeper::ZooKeeper::from_url(url).map(Registry::from));
    #[cfg(not(feature = "zookeeper"))]
    let schemes = schemes.without("zookeeper", "enable the feature `zookeeper` of tower-sd");
    schemes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_in_a_url_is_refused_by_every_registry_and_not_shown() {
        let schemes = schemes();
        for scheme in schemes.names() {
            for rest in [
                "u:hunter2@h:1",
                "u:hunter2/x@h:1",
                "u:hunter2?x@h:1",
                "u:hunter2%40h:1",
                "u:12/hunter2@h:1",
                "u:12?hunter2@h:1",
                "u:hunter2",
            ] {
                let error = schemes.open(&format!("{scheme}://{rest}")).expect_err(rest);
                assert!(!format!("{error} {error:?}").contains("hunter2"), "{scheme}: {error:?}");
            }
        }
    }
}
