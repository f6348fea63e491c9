//! From records to instances.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use hickory_resolver::proto::rr::{Name, RData, rdata::SRV};
use tower_sd_core::{Error, ErrorKind, Instance, Result};

use crate::{BACKEND, query::shown};

/// The addresses of each target, or why there are none.
pub(crate) type Targets = HashMap<Name, Result<Vec<IpAddr>>>;

/// The SRV records among `records`, without those that say that there is no such service (RFC 2782: target `.`).
pub(crate) fn services(records: Vec<RData>) -> Vec<SRV> {
    let services = records.into_iter().filter_map(|record| match record {
        RData::SRV(srv) if !srv.target.is_root() => Some(srv),
        _ => None,
    });
    services.collect()
}

/// One entry per record and address; a record that leads nowhere is an error in its place.
pub(crate) fn instances(services: &[SRV], targets: &Targets) -> Vec<Result<Instance>> {
    // RFC 2782: where all weights are zero nobody has a preference.
    let weighted: BTreeSet<u16> =
        services.iter().filter(|srv| srv.weight > 0).map(|srv| srv.priority).collect();
    let mut entries = Vec::with_capacity(services.len());
    for srv in services {
        match usable(srv, targets) {
            Ok(addresses) => {
                let weight = weight(srv, weighted.contains(&srv.priority), addresses.len());
                let made = addresses.iter().map(|ip| Ok(service(srv, *ip).with_weight(weight)));
                entries.extend(made);
            }
            Err(error) => entries.push(Err(error)),
        }
    }
    entries
}

/// An instance of the A and AAAA form.
pub(crate) fn host(ip: IpAddr, port: u16) -> Instance {
    Instance::new(ip.to_string(), port)
}

fn service(srv: &SRV, ip: IpAddr) -> Instance {
    let target = shown(&srv.target);
    Instance::new(ip.to_string(), srv.port)
        .with_id(format!("{target}:{}@{ip}", srv.port))
        .with_priority(srv.priority.into())
        .with_metadata(TARGET, target)
}

fn usable<'a>(srv: &SRV, targets: &'a Targets) -> Result<&'a [IpAddr]> {
    let target = shown(&srv.target);
    if srv.port == 0 {
        let message = format!("{target} has port 0, which cannot be connected to");
        return Err(Error::new(ErrorKind::Protocol, BACKEND, "follow").with_message(message));
    }
    let addresses = match targets.get(&srv.target) {
        Some(Ok(addresses)) => addresses.as_slice(),
        Some(Err(error)) => return Err(error.clone()),
        None => &[],
    };
    if addresses.is_empty() {
        let message = format!("the target {target} has no address");
        return Err(Error::new(ErrorKind::NotFound, BACKEND, "follow").with_message(message));
    }
    Ok(addresses)
}

/// 100 · w, shared among the target's addresses: a weight is the target's. Zero, which means "hardly ever" in DNS and "no
/// traffic" with us, becomes 1.
fn weight(srv: &SRV, group_is_weighted: bool, n_addresses: usize) -> u32 {
    let weight = match (group_is_weighted, srv.weight) {
        (false, _) => WEIGHT_UNIT,
        (true, weight) => WEIGHT_UNIT * u32::from(weight),
    };
    let n_addresses = u32::try_from(n_addresses).unwrap_or(u32::MAX);
    (weight / n_addresses.max(1)).max(1)
}

/// The default weight of an instance, so that DNS without weights fits beside other registries.
const WEIGHT_UNIT: u32 = 100;
/// The key of the metadata with the target's name: what a TLS certificate is for.
const TARGET: &str = "dns-target";
