use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    pin::pin,
    time::Duration,
};

use ::reqwest::dns::{Addrs, Name, Resolve, Resolving};
use futures_util::stream::{self, Stream, StreamExt};
use tokio::{
    net::lookup_host,
    select,
    time::{Instant, sleep},
};
use tower_sd_balance::{AddressPolicy, BoxError, Instance, Instancer, Subscription};

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
/// most 1 s. So are the host names of instances; once one is resolved, the others have 50 ms.
///
/// ```no_run
/// use std::sync::Arc;
/// use reqwest::Client;
/// use tower_sd::{FixedInstancer, Instance, reqwest::InstanceResolver};
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
#[must_use]
pub struct InstanceResolver {
    services: HashMap<String, Subscription>,
    addresses: AddressPolicy,
    checks_all: bool,
}

impl InstanceResolver {
    /// Has no service yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Resolves `name` by what `instancer` follows.
    pub fn service(mut self, name: &str, instancer: &(impl Instancer + ?Sized)) -> Self {
        self.services.insert(name.to_ascii_lowercase(), instancer.subscribe());
        self
    }

    /// Denies addresses that host names of instances resolve to.
    ///
    /// IP addresses that the registry lists are not checked here: a `Publisher` has checked them.
    /// Defaults to [`AddressPolicy::default`].
    pub fn addresses(self, policy: AddressPolicy) -> Self {
        Self { addresses: policy, ..self }
    }

    /// Checks the addresses of all other names too.
    ///
    /// The inner client of a [`ReqwestFactory`](super::ReqwestFactory) needs it: it resolves host
    /// names of instances, which a registry lists. Defaults to no check: other names are those of
    /// the program.
    pub fn check_all_names(self) -> Self {
        Self { checks_all: true, ..self }
    }
}

impl Resolve for InstanceResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let subscription = self.services.get(&name.as_str().to_ascii_lowercase()).cloned();
        let (policy, checks_all) = (self.addresses.clone(), self.checks_all);
        Box::pin(async move {
            match subscription {
                Some(subscription) => by_registry(name.as_str(), subscription, &policy).await,
                None if checks_all => addresses(name.as_str(), 0, &policy).await.map(boxed),
                None => {
                    let found: Vec<_> = lookup_host((name.as_str(), 0)).await?.collect();
                    Ok(boxed(found))
                }
            }
        })
    }
}

async fn by_registry(
    name: &str,
    mut subscription: Subscription,
    policy: &AddressPolicy,
) -> Result<Addrs, BoxError> {
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
    let lookup = |(n, instance): (usize, Instance)| async move {
        (n, addresses(instance.host(), instance.port(), policy).await)
    };
    let lookups = stream::iter(instances).enumerate().map(lookup).buffer_unordered(MAX_LOOKUPS);
    found_in_time(lookups).await.map(boxed)
}

/// The addresses in the order of their instances; those that come too late are left out.
async fn found_in_time(
    lookups: impl Stream<Item = (usize, Result<Vec<SocketAddr>, BoxError>)>,
) -> Result<Vec<SocketAddr>, BoxError> {
    let (mut lookups, mut late) = (pin!(lookups), pin!(sleep(PATIENCE)));
    let (mut found, mut failure) = (Vec::new(), None);
    loop {
        select! {
            biased;
            lookup = lookups.next() => match lookup {
                Some((n, Ok(addresses))) => {
                    if found.is_empty() {
                        late.as_mut().reset(Instant::now() + RESOLUTION_DELAY);
                    }
                    found.push((n, addresses));
                }
                Some((_, Err(error))) => failure = Some(error),
                None => break,
            },
            () = &mut late => break,
        }
    }
    match (found.is_empty(), failure) {
        (true, Some(error)) => Err(error),
        (true, None) => Err(format!("host names not resolved within {PATIENCE:?}").into()),
        (false, _) => {
            found.sort_by_key(|(n, _)| *n);
            Ok(found.into_iter().flat_map(|(_, addresses)| addresses).collect())
        }
    }
}

async fn addresses(
    host: &str,
    port: u16,
    policy: &AddressPolicy,
) -> Result<Vec<SocketAddr>, BoxError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let mut denied = None;
    let mut found: Vec<_> = lookup_host((host, port)).await?.collect();
    found.retain(|address| {
        let refused = policy.allows(address.ip()).err();
        denied = refused
            .map(|reason| format!("{host} is {}: {reason}", address.ip()))
            .or_else(|| denied.take());
        refused.is_none()
    });
    match denied {
        Some(denied) if found.is_empty() => Err(denied.into()),
        _ => Ok(found),
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
/// As RFC 8305, section 3, waits for the answers that are missing.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// Each takes a thread of tokio's pool for blocking calls, which has 512.
const MAX_LOOKUPS: usize = 64;

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    async fn after(delay: u64, n: usize) -> (usize, Result<Vec<SocketAddr>, BoxError>) {
        sleep(Duration::from_millis(delay)).await;
        let port = u16::try_from(n).expect("small");
        (n, Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]))
    }

    #[tokio::test(start_paused = true)]
    async fn slow_host_name_delays_the_others_by_50_ms() {
        let begun = Instant::now();
        let lookups = [after(200, 0), after(130, 1), after(100, 2)];
        let lookups = stream::iter(lookups).buffer_unordered(3);
        let found = found_in_time(lookups).await.expect("two of three");
        let ports: Vec<_> = found.iter().map(SocketAddr::port).collect();
        assert_eq!((ports, begun.elapsed().as_millis()), (vec![1, 2], 150));
    }

    #[tokio::test(start_paused = true)]
    async fn host_names_that_do_not_resolve_are_waited_for_1_s() {
        let begun = Instant::now();
        let lookups = stream::iter([pending()]).buffer_unordered(1);
        let error = found_in_time(lookups).await.expect_err("none");
        assert_eq!(error.to_string(), "host names not resolved within 1s");
        assert_eq!(begun.elapsed().as_millis(), 1_000);
    }

    #[tokio::test]
    async fn denied_address_of_a_host_name_is_left_out() {
        let policy = AddressPolicy::default();
        assert!(!addresses("localhost", 7, &policy).await.expect("allowed").is_empty());
        let loopback = ["127.0.0.0/8", "::1/128"].map(|net| net.parse().expect("a network"));
        let error = addresses("localhost", 7, &policy.deny(loopback)).await.expect_err("denied");
        assert!(error.to_string().ends_with(": in a denied network"), "{error}");
    }
}
