//! Follows a name at the pace of its TTL.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream};
use hickory_resolver::proto::rr::{Name, RData, RecordType, rdata::SRV};
use tokio::time::Instant;
use tower_sd_core::{Instance, ReadMode, ReadRequest, ReadResult, Result, Source, async_trait};

use crate::{
    Family, Query,
    client::{DnsClient, answer::Answer},
    mapping::{self, Targets},
    query::Kind,
};

/// The wire of one followed name.
#[derive(Debug)]
pub(crate) struct DnsSource {
    client: DnsClient,
    query: Query,
    /// The hosts of the last read: valid for their TTL, and after it while a lookup of them fails.
    last: HashMap<Name, Host>,
}

/// The addresses of one host.
#[derive(Clone, Debug)]
struct Host {
    ips: Vec<IpAddr>,
    until: Instant,
}

#[async_trait]
impl Source for DnsSource {
    type Item = Instance;

    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult> {
        let (entries, until) = match self.query.kind {
            Kind::Srv => self.read_services(request.mode).await?,
            Kind::Host(port) => self.read_host(port).await?,
        };
        Ok(ReadResult::set(entries).refresh_in(until.saturating_duration_since(Instant::now())))
    }
}

impl DnsSource {
    pub(crate) fn new(client: DnsClient, query: Query) -> Self {
        Self { client, query, last: HashMap::new() }
    }

    async fn read_host(&mut self, port: u16) -> Result<(Vec<Result<Instance>>, Instant)> {
        let name = self.query.name.clone();
        let host = self.host(&name).await?;
        let entries = host.ips.iter().map(|ip| Ok(mapping::host(*ip, port))).collect();
        let until = host.until;
        self.last = HashMap::from([(name, host)]);
        Ok((entries, until))
    }

    async fn read_services(&mut self, want: ReadMode) -> Result<(Vec<Result<Instance>>, Instant)> {
        let found = match self.client.resolve(&self.query.name, RecordType::SRV).await? {
            Answer::Found(found) => found,
            Answer::Nothing { ttl } => return Ok((Vec::new(), after(ttl))),
        };
        let mut until = after(found.ttl);
        let services = mapping::services(found.records);
        let mut glue = HashMap::new();
        for (name, ip) in found.glue {
            glue.entry(name).or_insert_with(|| Host { ips: Vec::new(), until }).ips.push(ip);
        }
        // A full answer leaves out whole families, others every time: a wanted one is looked up.
        let (complete, partial): (HashMap<_, _>, HashMap<_, _>) =
            glue.into_iter().partition(|(_, host)| self.query.family.is_in(&host.ips));
        let mut hosts = complete.into_iter().map(|(name, host)| (name, Ok(host))).collect();
        self.look_up_missing(&services, want, &mut hosts).await;
        for (name, host) in partial {
            hosts.entry(name).and_modify(|looked_up| {
                if looked_up.is_err() {
                    *looked_up = Ok(host);
                }
            });
        }
        if let Some(Err(error)) = hosts.values().next()
            && hosts.values().all(Result::is_err)
        {
            return Err(error.clone());
        }
        let (mut targets, mut last, now) = (Targets::new(), HashMap::new(), Instant::now());
        for (name, host) in hosts {
            // A host that cannot be looked up now has its last addresses.
            let host = host.or_else(|error| self.last.get(&name).cloned().ok_or(error));
            until = until.min(host.as_ref().map_or(now, |host| host.until));
            let ips = host.map(|mut host| {
                keep_family(&mut host.ips, self.query.family);
                last.insert(name.clone(), host.clone());
                host.ips
            });
            targets.insert(name, ips);
        }
        self.last = last;
        Ok((mapping::instances(&services, &targets), until))
    }

    /// Adds the targets without an address in the answer: from the last read, or looked up.
    async fn look_up_missing(
        &self,
        services: &[SRV],
        want: ReadMode,
        hosts: &mut HashMap<Name, Result<Host>>,
    ) {
        let now = Instant::now();
        // An endpoint that refuses connections may have moved.
        let is_doubted = matches!(want, ReadMode::Confirm | ReadMode::Verify);
        let mut lookups = Vec::new();
        let missing: HashSet<&Name> = services.iter().map(|srv| &srv.target).collect();
        for name in
            missing.into_iter().filter(|name| !hosts.contains_key(*name)).collect::<Vec<_>>()
        {
            match self.last.get(name).filter(|host| host.until > now && !is_doubted) {
                Some(host) => drop(hosts.insert(name.clone(), Ok(host.clone()))),
                None => lookups.push(async move { (name, self.host(name).await) }.boxed()),
            }
        }
        let mut lookups = stream::iter(lookups).buffer_unordered(MAX_LOOKUPS);
        while let Some((name, host)) = lookups.next().await {
            hosts.insert(name.clone(), host);
        }
    }

    /// The addresses of `name`.
    ///
    /// A family whose lookup fails has its last addresses, while the other one is looked up. It is
    /// an error if neither is, or if there are none.
    async fn host(&self, name: &Name) -> Result<Host> {
        let mut host = Host { ips: Vec::new(), until: after(Duration::MAX) };
        let (mut answers, mut failed) = (false, None);
        for kind in self.query.family.order() {
            let answer = match self.client.in_hosts_file(name, kind) {
                Some(answer) => Ok(answer),
                None => self.client.resolve(name, kind).await,
            };
            answers |= answer.is_ok();
            let (ips, ttl) = match answer {
                Ok(Answer::Found(found)) => {
                    (found.records.iter().filter_map(RData::ip_addr).collect(), found.ttl)
                }
                Ok(Answer::Nothing { ttl }) => (Vec::new(), ttl),
                Err(error) => {
                    failed = Some(error);
                    (self.last_of_family(name, kind), Duration::ZERO)
                }
            };
            host.until = host.until.min(after(ttl));
            host.ips.extend(ips);
            if answers && self.query.family != Family::Both && !host.ips.is_empty() {
                break;
            }
        }
        match failed {
            Some(error) if !answers || host.ips.is_empty() => Err(error),
            _ => {
                keep_family(&mut host.ips, self.query.family);
                Ok(host)
            }
        }
    }

    fn last_of_family(&self, name: &Name, kind: RecordType) -> Vec<IpAddr> {
        let last = self.last.get(name).into_iter().flat_map(|last| &last.ips).copied();
        last.filter(|ip| ip.is_ipv4() == (kind == RecordType::A)).collect()
    }
}

/// In `ttl`, or in a year: no answer is valid for longer anyway.
fn after(ttl: Duration) -> Instant {
    Instant::now() + ttl.min(YEAR)
}

/// Keeps the wanted family only, or the other one when there is no other.
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

/// Concurrent lookups of targets: a small server is not flooded, and 60 are four round trips.
const MAX_LOOKUPS: usize = 16;
/// Instants cannot be as far away as durations are long.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
