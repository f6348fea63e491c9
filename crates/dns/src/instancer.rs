//! Follows a name at the pace of its TTL.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use futures_util::{FutureExt, StreamExt, stream};
use hickory_resolver::proto::rr::{Name, RecordType, rdata::SRV};
use tower_sd_core::{
    Error, FollowConfig, Follower, Instance, Instancer, PublisherConfig, Read, Reading, Result,
    Source, Subscription, async_trait,
};

use crate::{
    BACKEND, DnsClient, Family, Query,
    client::answer::{Answer, Found},
    mapping::{self, Targets},
    query::{Kind, shown},
    url,
};

/// Follows the instances that DNS has for a name.
///
/// It looks the name up again when the least TTL of the answer has passed: not before
/// [`FollowConfig::min_refresh`] (5 s, the TTL of CoreDNS in Kubernetes; Consul's is 0) and not after
/// [`FollowConfig::max_refresh`] (5 min, since nobody tells when a record changes), within 10 %. After "there are none" it
/// takes the negative TTL of the zone's SOA, at most 60 s.
#[derive(Clone, Debug)]
pub struct DnsInstancer(Follower);

/// The wire of one followed name.
#[derive(Debug)]
struct DnsSource {
    client: DnsClient,
    query: Query,
    /// The addresses of the last read, which stand in for those that cannot be learned this time.
    last: BTreeMap<Name, Vec<IpAddr>>,
}

/// The addresses of one host.
struct Addresses {
    ips: Vec<IpAddr>,
    ttl: Duration,
}

impl DnsInstancer {
    /// Starts to follow what `query` names, with the default settings.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(client: &DnsClient, query: Query) -> Self {
        let publisher = PublisherConfig::new(BACKEND, shown(&query.name));
        Self::with_config(client, query, publisher, FollowConfig::new(BACKEND))
    }

    /// Starts to follow what `query` names, with these settings.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn with_config(
        client: &DnsClient,
        query: Query,
        publisher: PublisherConfig,
        follow: FollowConfig,
    ) -> Self {
        let source = DnsSource { client: client.clone(), query, last: BTreeMap::new() };
        Self(Follower::new(source, publisher, follow))
    }

    /// Starts to follow what a URL names: `dns+srv://_http._tcp.example.org` for SRV records, `dns://example.org:8080`
    /// for addresses with a port.
    ///
    /// Settings follow a `?`, joined by `&`: `server=127.0.0.1:53` (also several times; without a port it is 53),
    /// `tcp=first`, and the bounds of the time between lookups, `min=5s` and `max=5m`.
    ///
    /// # Errors
    ///
    /// `Config`: what is wrong with the URL.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn from_url(text: &str) -> Result<Self> {
        let url = url::parse(text)?;
        let publisher = PublisherConfig::new(BACKEND, shown(&url.query.name));
        let client = DnsClient::new(url.config);
        Ok(Self::with_config(&client, url.query, publisher, url.follow))
    }

    /// Ends the loop and its lookups, and waits for that.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the loop still ends; only the waiting is lost.
    pub async fn close(&self) {
        self.0.close().await;
    }
}

impl Instancer for DnsInstancer {
    fn subscribe(&self) -> Subscription {
        self.0.subscribe()
    }
}

#[async_trait]
impl Source for DnsSource {
    type Item = Instance;

    /// Nothing is cached here, so all reads are equally strong.
    async fn read(&mut self, _want: Read) -> Result<Reading> {
        let (entries, ttl) = match self.query.kind {
            Kind::Srv => self.read_services().await?,
            Kind::Host(port) => self.read_host(port).await?,
        };
        Ok(Reading::Set { entries, refresh_in: Some(ttl) })
    }
}

impl DnsSource {
    async fn read_host(&mut self, port: u16) -> Result<(Vec<Result<Instance>>, Duration)> {
        let name = self.query.name.clone();
        let Addresses { ips, ttl } = self.addresses(&name).await?;
        let entries = ips.iter().map(|ip| Ok(mapping::host(*ip, port))).collect();
        self.last = BTreeMap::from([(name, ips)]);
        Ok((entries, ttl))
    }

    async fn read_services(&mut self) -> Result<(Vec<Result<Instance>>, Duration)> {
        let found = match self.client.resolve(&self.query.name, RecordType::SRV).await? {
            Answer::Found(found) => found,
            Answer::Nothing { ttl } => return Ok((Vec::new(), ttl)),
        };
        let Found { records, mut ttl, glue } = found;
        let services = mapping::services(records);
        let targets = self.targets(&services, glue, &mut ttl).await;
        let entries = mapping::instances(&services, &targets);
        self.last = targets.into_iter().filter_map(|(name, ips)| Some((name, ips.ok()?))).collect();
        Ok((entries, ttl))
    }

    /// The addresses of all targets: those that came along, and the others looked up.
    async fn targets(
        &self,
        services: &[SRV],
        glue: Vec<(Name, IpAddr)>,
        ttl: &mut Duration,
    ) -> Targets {
        let mut targets = Targets::new();
        for (name, ip) in glue {
            if let Ok(ips) = targets.entry(name).or_insert_with(|| Ok(Vec::new())) {
                ips.push(ip);
            }
        }
        for ips in targets.values_mut().flatten() {
            keep_family(ips, self.query.family);
        }
        let mut missing: Vec<&Name> = services.iter().map(|srv| &srv.target).collect();
        missing.retain(|name| !targets.contains_key(*name));
        missing.sort_unstable();
        missing.dedup();
        let mut lookups = Vec::with_capacity(missing.len());
        for name in missing {
            lookups.push(async move { (name, self.addresses(name).await) }.boxed());
        }
        let mut lookups = stream::iter(lookups).buffer_unordered(AT_ONCE);
        while let Some((name, addresses)) = lookups.next().await {
            let addresses = addresses.map(|Addresses { ips, ttl: of_target }| {
                *ttl = (*ttl).min(of_target);
                ips
            });
            if addresses.is_err() {
                *ttl = Duration::ZERO;
            }
            targets.insert(name.clone(), addresses);
        }
        targets
    }

    /// The addresses of `name`, by family. Of a family that cannot be learned now those of the last time are taken; an
    /// error when nothing else is known either.
    async fn addresses(&self, name: &Name) -> Result<Addresses> {
        let mut addresses = Addresses { ips: Vec::new(), ttl: Duration::MAX };
        let mut failed: Option<Error> = None;
        for kind in self.query.family.order() {
            let answer = match self.client.in_hosts_file(name, kind) {
                Some(found) => Ok(Answer::Found(found)),
                None => self.client.resolve(name, kind).await,
            };
            let of_answer = match answer {
                Ok(Answer::Found(found)) => {
                    let ips = found.records.iter().filter_map(|record| record.ip_addr());
                    addresses.ips.extend(ips);
                    found.ttl
                }
                Ok(Answer::Nothing { ttl }) => ttl,
                Err(error) => {
                    let last = self.last.get(name).into_iter().flatten().copied();
                    addresses.ips.extend(last.filter(|ip| ip.is_ipv4() == (kind == RecordType::A)));
                    failed = Some(error);
                    Duration::ZERO
                }
            };
            addresses.ttl = addresses.ttl.min(of_answer);
            if self.query.family != Family::Both && !addresses.ips.is_empty() {
                return Ok(addresses);
            }
        }
        match failed {
            Some(error) if addresses.ips.is_empty() => Err(error),
            _ => Ok(addresses),
        }
    }
}

/// Leaves the wanted family only, or the other one when there is no other.
fn keep_family(ips: &mut Vec<IpAddr>, family: Family) {
    let wants_v4 = match family {
        Family::Ipv4First => true,
        Family::Ipv6First => false,
        Family::Both => return,
    };
    if ips.iter().any(|ip| ip.is_ipv4() == wants_v4) {
        ips.retain(|ip| ip.is_ipv4() == wants_v4);
    }
}

/// Lookups of targets that run at once: a small server is not flooded, and 60 targets are four round trips.
const AT_ONCE: usize = 16;
