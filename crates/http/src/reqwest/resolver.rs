use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ::reqwest::dns::{Addrs, Name, Resolve, Resolving};
use futures_util::future::join_all;
use tokio::net::lookup_host;
use tower_sd_balance::{BoxError, Instance, Instancer, Subscription};

/// Resolves the names of services by their registry.
///
/// The operating system resolves all other names.
///
/// This is name resolution and no balancing: reqwest resolves when it opens a connection, tries the
/// addresses one after the other until one accepts, and then keeps that connection for as long as
/// it is used. One client that is never idle may send everything to one instance; an instance that
/// has left gets requests until its connections close; load and failures are not seen.
/// `pool_idle_timeout` and `pool_max_idle_per_host` bound how long. For balancing there is
/// [`ReqwestFactory`](super::ReqwestFactory).
///
/// It does fail over when it connects, and with https a certificate is checked for the service's
/// name. The addresses come in random order. A port in the URL wins; without one it is the
/// instance's, which is what you want. A name whose registry has not answered yet is waited for, at
/// most 1 s.
///
/// ```no_run
/// use std::sync::Arc;
/// use reqwest::Client;
/// use tower_sd_balance::{FixedInstancer, Instance};
/// use tower_sd_http::reqwest::InstanceResolver;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> reqwest::Result<()> {
/// let instancer = FixedInstancer::new([Instance::new("127.0.0.1", 8081)]);
/// let resolver = InstanceResolver::new().service("arithmetic", &instancer);
/// let client = Client::builder().dns_resolver(Arc::new(resolver)).no_proxy().build()?;
/// // client.get("http://arithmetic/health").send().await?
/// # drop(client);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct InstanceResolver {
    services: HashMap<String, Subscription>,
}

impl InstanceResolver {
    /// Has no service yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Resolves `name` by what `instancer` follows.
    #[must_use]
    pub fn service(mut self, name: &str, instancer: &(impl Instancer + ?Sized)) -> Self {
        self.services.insert(name.to_ascii_lowercase(), instancer.subscribe());
        self
    }
}

impl Resolve for InstanceResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let subscription = self.services.get(&name.as_str().to_ascii_lowercase()).cloned();
        Box::pin(async move {
            match subscription {
                Some(subscription) => by_registry(name.as_str(), subscription).await,
                None => {
                    let found: Vec<_> = lookup_host((name.as_str(), 0)).await?.collect();
                    Ok(boxed(found))
                }
            }
        })
    }
}

async fn by_registry(name: &str, mut subscription: Subscription) -> Result<Addrs, BoxError> {
    let snapshot = subscription.ready(PATIENCE).await?;
    let usable =
        |listed: &[Instance]| listed.iter().filter(|i| i.accepts_requests()).cloned().collect();
    let mut instances: Vec<Instance> = usable(snapshot.instances());
    if instances.is_empty() {
        // What the registry has lost a moment ago may still be there.
        instances = usable(snapshot.held());
    }
    if instances.is_empty() {
        return Err(format!("no instances of {name}").into());
    }
    fastrand::shuffle(&mut instances);
    let found = join_all(instances.iter().map(addresses)).await;
    let (found, failed): (Vec<_>, Vec<_>) = found.into_iter().partition(Result::is_ok);
    let found: Vec<SocketAddr> = found.into_iter().flatten().flatten().collect();
    match failed.into_iter().find_map(Result::err) {
        Some(error) if found.is_empty() => Err(error.into()),
        _ => Ok(boxed(found)),
    }
}

async fn addresses(instance: &Instance) -> std::io::Result<Vec<SocketAddr>> {
    match instance.host().parse::<IpAddr>() {
        Ok(ip) => Ok(vec![SocketAddr::new(ip, instance.port())]),
        Err(_) => Ok(lookup_host((instance.host(), instance.port())).await?.collect()),
    }
}

fn boxed(found: Vec<SocketAddr>) -> Addrs {
    Box::new(found.into_iter())
}

impl fmt::Debug for InstanceResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.services.keys()).finish()
    }
}

/// As long as a balancer waits for its first instances.
const PATIENCE: Duration = Duration::from_secs(1);
