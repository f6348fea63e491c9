//! From records to instances.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, net::IpAddr};

use hickory_resolver::proto::rr::{Name, RData, rdata::SRV};
use tower_sd_core::{Error, ErrorKind, Instance, Result};

use crate::{BACKEND, query::shown};

/// The addresses of each target, or the reason for their absence.
pub(crate) type Targets = HashMap<Name, Result<Vec<IpAddr>>>;

/// The SRV records among `records`, without the target `.`, which stands for no service (RFC 2782).
pub(crate) fn services(records: Vec<RData>) -> Vec<SRV> {
    let services = records.into_iter().filter_map(|record| match record {
        RData::SRV(srv) if !srv.target.is_root() => Some(srv),
        _ => None,
    });
    services.collect()
}

/// One entry per record and address; a record without a usable address is an error in its place.
pub(crate) fn instances(services: &[SRV], targets: &Targets) -> Vec<Result<Instance>> {
    let mut entries = Vec::with_capacity(services.len());
    for srv in services {
        match usable(srv, targets) {
            Ok(addresses) => {
                let weight = weight(srv, addresses.len());
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
    Instance::new(ip.to_string(), port).with_weight(1)
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
        let message = format!("record unusable: {target} has port 0");
        return Err(Error::new(ErrorKind::Protocol, BACKEND, "follow").with_message(message));
    }
    let addresses = match targets.get(&srv.target) {
        Some(Ok(addresses)) => addresses.as_slice(),
        Some(Err(error)) => return Err(error.clone()),
        None => &[],
    };
    if addresses.is_empty() {
        let message = format!("record unusable: {target} has no address");
        return Err(Error::new(ErrorKind::NotFound, BACKEND, "follow").with_message(message));
    }
    Ok(addresses)
}

/// The record's weight, shared among its target's addresses, and 1 at least.
///
/// In DNS, zero means "hardly ever": by RFC 2782, a chance of 1 in the sum of all weights plus 1,
/// which is the share of a weight of 1. Weights that are all zero are all equal.
fn weight(srv: &SRV, n_addresses: usize) -> u32 {
    let n_addresses = u32::try_from(n_addresses).unwrap_or(u32::MAX);
    (u32::from(srv.weight) / n_addresses.max(1)).max(1)
}

/// The key of the metadata with the target's name, which a TLS certificate has.
const TARGET: &str = "dns-target";
