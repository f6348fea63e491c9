//! An instance as Consul's service entry, and back.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use tower_sd_core::{Error, ErrorKind, Instance, InstanceStatus, Result};

use crate::{
    BACKEND,
    client::{
        check_path,
        reply::{Check, Service, ServiceEntry},
        request::{ServiceRegistration, Weights},
    },
    error,
};

/// The registration of an instance, without checks.
///
/// # Errors
///
/// `Config`, naming the limit of Consul's that it breaks.
pub(crate) fn registration(
    service: &str,
    instance: &Instance,
    incarnation: &str,
) -> Result<ServiceRegistration> {
    let mut meta = meta(instance);
    meta.insert(INCARNATION.to_owned(), incarnation.to_owned());
    check_limits(service, instance, &meta)?;
    let weight = consul_weight(instance.weight());
    Ok(ServiceRegistration {
        id: service_id(service, instance.id().as_str()),
        name: service.to_owned(),
        address: instance.host().to_owned(),
        port: instance.port(),
        tags: instance.tags().to_vec(),
        meta,
        weights: Weights { passing: weight, warning: weight },
        enable_tag_override: false,
        tagged_addresses: BTreeMap::new(),
        checks: Vec::new(),
    })
}

/// The id in Consul: unique per agent, over all services. One registered again under another name
/// would *move*, so a colon in the name is escaped: `a:b` with `c` is not `a` with `b:c`.
pub(crate) fn service_id(service: &str, id: &str) -> String {
    match service.contains([':', '%']) {
        true => format!("{}:{id}", service.replace('%', "%25").replace(':', "%3A")),
        false => format!("{service}:{id}"),
    }
}

/// The TTL check of a service. Ids of checks are unique per agent too.
pub(crate) fn check_id(service_id: &str) -> String {
    format!("service:{service_id}")
}

/// A check of a service that the agent runs itself.
pub(crate) fn own_check_id(service_id: &str, n: usize) -> String {
    format!("check-{n}:{service_id}")
}

/// The check that Consul makes of a service's maintenance.
pub(crate) fn maintenance_id(service_id: &str) -> String {
    format!("{MAINTENANCE}{service_id}")
}

/// The other registration that an entry belongs to: its address and incarnation.
///
/// An entry without an incarnation, of another program, has no owner.
pub(crate) fn owner_beside(incarnation: &str, found: &Service) -> Option<String> {
    let owner = found.meta.get(INCARNATION).filter(|owner| *owner != incarnation)?;
    Some(format!("{}:{}, incarnation {owner}", found.address, found.port))
}

/// Whether the entry is of this incarnation.
pub(crate) fn is_ours(incarnation: &str, found: &Service) -> bool {
    found.meta.get(INCARNATION).is_some_and(|owner| owner == incarnation)
}

/// Whether the agent's entry is as it was registered.
pub(crate) fn is_as_registered(ours: &ServiceRegistration, found: &Service) -> bool {
    found.name == ours.name
        && found.address == ours.address
        && found.port == i64::from(ours.port)
        && found.meta == ours.meta
        // Where others may change them the agent takes theirs.
        && (ours.enable_tag_override || found.tags == ours.tags)
        && found.weights.passing == u32::from(ours.weights.passing)
        && found.weights.warning == u32::from(ours.weights.warning)
}

/// The instance that an entry of the catalogue describes, with the status that its checks add up
/// to; at the address of that tag, by the rule of Consul's own agent (`translate_addr.go`): port,
/// address of the service and address of the node each have a tagged one or not.
///
/// # Errors
///
/// `Protocol`: an instance cannot be made of it.
pub(crate) fn instance(entry: ServiceEntry, tagged_address: Option<&str>) -> Result<Instance> {
    let ServiceEntry { node, service, checks } = entry;
    let Service {
        id, address, port, tags, mut meta, weights, locality, mut tagged_addresses, ..
    } = service;
    let name = meta.remove(ID).unwrap_or_else(|| format!("{}/{id}", node.node));
    let malformed = |what: String| {
        Error::new(ErrorKind::Protocol, BACKEND, "follow")
            .with_instance(name.as_str().into())
            .with_message(what)
    };
    let tagged = tagged_address.and_then(|tag| tagged_addresses.remove(tag)).unwrap_or_default();
    let of_node = tagged_address.and_then(|tag| node.tagged_addresses.get(tag)).cloned();
    let candidates = [tagged.address, address, of_node.unwrap_or_default(), node.address];
    let address = candidates.into_iter().find(|address| !address.is_empty()).unwrap_or_default();
    let port = if tagged.port == 0 { port } else { tagged.port };
    if address.is_empty() {
        return Err(malformed("neither the service nor its node has an address".into()));
    }
    let port = match u16::try_from(port) {
        Ok(port) if port != 0 => port,
        _ => {
            return Err(malformed(format!(
                "port {port} cannot be connected to; register the service with its port"
            )));
        }
    };
    let draining = meta.get(STATUS).is_some_and(|status| status == DRAINING);
    let status = worst_of(&checks, draining);
    let weight = match status {
        InstanceStatus::Warning => weights.warning,
        _ => weights.passing,
    };
    let (scheme, host) = split_scheme(&address);
    let mut instance = Instance::new(host, port)
        .with_id(name)
        .with_tags(tags)
        .with_weight(weight)
        .with_status(status);
    if let Some(scheme) = scheme {
        instance = instance.with_scheme(scheme);
    }
    if let Some(locality) = locality.filter(|locality| !locality.zone.is_empty()) {
        instance = instance.with_zone(locality.zone);
    }
    Ok(with_meta(instance, meta))
}

/// The worst state of all checks, those of the node too: an agent that died leaves its services'
/// own checks passing.
///
/// Maintenance counts as critical, unless the instance itself reports so that it is about to leave.
fn worst_of(checks: &[Check], draining: bool) -> InstanceStatus {
    let mut worst = InstanceStatus::Passing;
    for check in checks {
        let of_service = check.id.starts_with(MAINTENANCE);
        match check.status.as_str() {
            _ if of_service && draining => {}
            _ if of_service || check.id == "_node_maintenance" => return InstanceStatus::Critical,
            "passing" => {}
            "warning" => worst = InstanceStatus::Warning,
            _ => return InstanceStatus::Critical,
        }
    }
    worst
}

fn meta(instance: &Instance) -> BTreeMap<String, String> {
    let mut meta = instance.metadata().clone();
    let mut set = |key: &str, value: String| meta.insert(key.to_owned(), value);
    set(ID, instance.id().to_string());
    if let Some(scheme) = instance.scheme() {
        set(SCHEME, scheme.to_owned());
    }
    if let Some(zone) = instance.zone() {
        set(ZONE, zone.to_owned());
    }
    if let Some(started_at_ms) = instance.started_at_ms() {
        set(STARTED_AT_MS, started_at_ms.to_string());
    }
    if instance.priority() != 0 {
        set(PRIORITY, instance.priority().to_string());
    }
    if u32::from(consul_weight(instance.weight())) != instance.weight() {
        set(WEIGHT, instance.weight().to_string());
    }
    match instance.status() {
        InstanceStatus::Passing => {}
        InstanceStatus::Warning => drop(set(STATUS, "warning".into())),
        InstanceStatus::Critical => drop(set(STATUS, "critical".into())),
        _ => drop(set(STATUS, DRAINING.into())),
    }
    meta
}

/// Takes our keys out of `meta`. They win over Consul's own values, but no status makes an instance
/// better.
fn with_meta(mut instance: Instance, meta: BTreeMap<String, String>) -> Instance {
    for (key, value) in meta {
        instance = match key.as_str() {
            SCHEME => instance.with_scheme(value),
            ZONE => instance.with_text("zone", &value),
            STARTED_AT_MS => instance.with_text("started_at_ms", &value),
            PRIORITY => instance.with_text("priority", &value),
            WEIGHT => instance.with_text("weight", &value),
            STATUS => {
                let status = worse(instance.status(), &value);
                instance.with_status(status)
            }
            key if key.starts_with(OURS) => instance,
            _ => instance.with_metadata(key, value),
        };
    }
    instance
}

fn worse(found: InstanceStatus, said: &str) -> InstanceStatus {
    match (found, said) {
        (InstanceStatus::Critical, _) | (_, "critical") => InstanceStatus::Critical,
        (_, DRAINING) => InstanceStatus::Draining,
        (_, "warning") => InstanceStatus::Warning,
        (found, _) => found,
    }
}

/// Consul refuses 0, and what does not fit in DNS.
fn consul_weight(weight: u32) -> u16 {
    u16::try_from(weight).unwrap_or(u16::MAX).max(1)
}

/// Some write `http://10.0.0.1` into the address.
fn split_scheme(address: &str) -> (Option<&str>, &str) {
    let (scheme, host) = match address.split_once("://") {
        Some((scheme, host)) => (Some(scheme), host.trim_end_matches('/')),
        None => (None, address),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    (scheme, bare.unwrap_or(host))
}

/// Consul checks these too, with sentences that do not name the instance, and lets names pass that
/// break DNS.
fn check_limits(service: &str, instance: &Instance, meta: &BTreeMap<String, String>) -> Result<()> {
    let refuse =
        |what: String| Err(error::config("register", what).with_instance(instance.id().clone()));
    if service.trim().is_empty() {
        return refuse("the service has no name".into());
    }
    check_path("register", &[service])
        .map_err(|error| error.with_instance(instance.id().clone()))?;
    if instance.id().as_str().contains(char::is_control) {
        let what = "has control characters, perhaps the line end of a file that it was read from";
        return refuse(format!("the instance id {:?} {what}", instance.id().as_str()));
    }
    if instance.host().is_empty() {
        return refuse("the instance has no host".into());
    }
    if instance.metadata().keys().any(|key| key.starts_with(OURS)) {
        return refuse(format!("metadata keys that start with {OURS} are reserved"));
    }
    if meta.len() > MAX_META {
        return refuse(format!(
            "{} pairs of metadata with ours, more than Consul's {MAX_META}",
            meta.len()
        ));
    }
    for (key, value) in meta {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if key.is_empty() || key.len() > MAX_META_KEY || !key.chars().all(allowed) {
            return refuse(format!(
                "metadata key {key:?}: Consul takes 1 to {MAX_META_KEY} of A-Z, a-z, 0-9, _ and -"
            ));
        }
        if key.starts_with("consul-") {
            return refuse(format!("metadata key {key:?}: Consul reserves consul-"));
        }
        if value.len() > MAX_META_VALUE {
            return refuse(format!(
                "metadata value of {key:?} has {} bytes, more than Consul's {MAX_META_VALUE}",
                value.len()
            ));
        }
    }
    Ok(())
}

const MAINTENANCE: &str = "_service_maintenance:";
const OURS: &str = "tower-sd-";
const DRAINING: &str = "draining";
const ID: &str = "tower-sd-id";
const INCARNATION: &str = "tower-sd-incarnation";
const PRIORITY: &str = "tower-sd-priority";
const SCHEME: &str = "tower-sd-scheme";
const STARTED_AT_MS: &str = "tower-sd-started-at-ms";
const STATUS: &str = "tower-sd-status";
const WEIGHT: &str = "tower-sd-weight";
const ZONE: &str = "tower-sd-zone";
/// Consul's limits (agent/structs/structs.go).
const MAX_META: usize = 64;
const MAX_META_KEY: usize = 128;
const MAX_META_VALUE: usize = 512;
