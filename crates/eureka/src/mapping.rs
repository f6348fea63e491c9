//! An instance as an entry of Eureka's, and back.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt::Write};

use tower_sd_core::{Error, ErrorKind, Instance, InstanceStatus, Result};

use crate::{
    BACKEND, Lookup, Query,
    client::{
        reply::{InstanceInfo, Port, Status},
        request::{InstanceRequest, LeaseRequest, OwnDataCenter, PortRequest},
    },
    error,
};

/// The name of an application, as servers write it: in capitals.
///
/// What no path of a server may have is escaped with a percent sign.
pub(crate) fn app_name(service: &str) -> String {
    escaped(service).to_uppercase()
}

/// The virtual address of a service: its name, escaped as that of an application.
pub(crate) fn vip_address(service: &str) -> String {
    escaped(service)
}

/// The id of an entry: `host:app:port` for an instance without an id of its own, as Spring's.
pub(crate) fn instance_id(service: &str, instance: &Instance) -> String {
    let id = instance.id().as_str();
    match id == instance.to_string() {
        true => escaped(&format!("{}:{service}:{}", instance.host(), instance.port())),
        false => escaped(id),
    }
}

/// The entry of an instance, with the status `UP` and no timestamp.
///
/// # Errors
///
/// `Config`: no entry can be made of it.
pub(crate) fn registration(
    service: &str,
    instance: &Instance,
    incarnation: &str,
    lease: LeaseRequest,
) -> Result<InstanceRequest> {
    let refuse =
        |what: String| Err(error::config("register", what).with_instance(instance.id().clone()));
    let host = instance.host();
    if host.is_empty() || host.starts_with("unix:") {
        return refuse("the instance has no host that other machines could reach".into());
    }
    if let Some(key) = instance.metadata().keys().find(|key| key.starts_with(OURS)) {
        return refuse(format!("metadata key {key:?}: keys that start with {OURS} are reserved"));
    }
    let metadata = metadata(service, instance, incarnation);
    let size: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > MAX_METADATA {
        return refuse(format!(
            "{size} bytes of metadata, more than {MAX_METADATA}: each client reads them every 30 s"
        ));
    }
    let secure = instance.scheme() == Some("https");
    let port = |enabled| PortRequest { number: instance.port(), enabled };
    let vip = vip_address(service);
    Ok(InstanceRequest {
        instance_id: instance_id(service, instance),
        app: app_name(service),
        host_name: host.to_owned(),
        // Servers refuse an entry without one; most clients use the host name.
        ip_addr: host.to_owned(),
        status: Status::Up,
        overridden_status: Status::Unknown,
        port: port(!secure),
        secure_port: port(secure),
        vip_address: vip.clone(),
        secure_vip_address: vip,
        home_page_url: None,
        status_page_url: None,
        health_check_url: None,
        data_center_info: OwnDataCenter::INFO,
        lease_info: lease,
        metadata,
        last_dirty_timestamp: 0,
    })
}

/// The instance that an entry describes.
///
/// # Errors
///
/// `Protocol`: an instance cannot be made of it.
pub(crate) fn instance(entry: &InstanceInfo, query: &Query) -> Result<Instance> {
    let id = entry.metadata.get(ID).map_or_else(|| entry.id(), String::as_str);
    let malformed = |what: String| {
        Error::new(ErrorKind::Protocol, BACKEND, error::FOLLOW)
            .permanent()
            .with_instance(id.into())
            .with_message(what)
    };
    if id.is_empty() {
        return Err(malformed("the entry has neither an id nor a host name".into()));
    }
    if !is_of(&entry.app, query) {
        return Err(malformed(format!("the entry is of the application {:?}", entry.app)));
    }
    let (first, second) = match query.prefer_ip {
        true => (&entry.ip_addr, &entry.host_name),
        false => (&entry.host_name, &entry.ip_addr),
    };
    let host = if first.is_empty() { second } else { first };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err(malformed("the entry has neither a host name nor an IP address".into()));
    }
    let (port, secure) = port(entry, query).map_err(malformed)?;
    let number = match u16::try_from(port.number) {
        Ok(number) if number != 0 => number,
        _ => return Err(malformed(format!("port {} cannot be connected to", port.number))),
    };
    let mut instance = Instance::new(host, number).with_id(id).with_status(status(entry));
    if secure {
        instance = instance.with_scheme("https");
    }
    if let Some(zone) = entry.data_center_info.metadata.get("availability-zone") {
        instance = instance.with_text("zone", zone);
    }
    Ok(with_metadata(instance, &entry.metadata))
}

/// Whether an entry of `app` is one that the query is for.
fn is_of(app: &str, query: &Query) -> bool {
    let is_of_name =
        || app.eq_ignore_ascii_case(&query.name) || app.to_uppercase() == app_name(&query.name);
    query.lookup != Lookup::App || app.is_empty() || is_of_name()
}

/// The entry's owner, unless that is this incarnation.
///
/// An entry without an incarnation, of another program, has no owner.
pub(crate) fn owner_beside(incarnation: &str, found: &InstanceInfo) -> Option<String> {
    let owner = found.metadata.get(INCARNATION).filter(|owner| *owner != incarnation)?;
    Some(format!("{}, incarnation {owner}", found.host_name))
}

/// Whether the entry is of this incarnation.
pub(crate) fn is_ours(incarnation: &str, found: &InstanceInfo) -> bool {
    found.metadata.get(INCARNATION).is_some_and(|owner| owner == incarnation)
}

/// Whether a registration of ours took the instance out of service, and not an operator.
pub(crate) fn is_draining(found: &InstanceInfo) -> bool {
    found.metadata.get(STATUS).is_some_and(|status| status == DRAINING)
}

/// Takes that note out of an entry.
pub(crate) fn unmark(entry: &mut InstanceRequest) {
    entry.metadata.remove(STATUS);
}

/// Whether the server has the status of an entry.
pub(crate) fn has_status_of(found: &InstanceInfo, entry: &InstanceRequest) -> bool {
    found.status == entry.status && found.metadata.get(STATUS) == entry.metadata.get(STATUS)
}

/// Notes a warning of the health check, which Eureka has no status for.
pub(crate) fn warn(entry: &mut InstanceRequest) {
    entry.metadata.entry(STATUS.to_owned()).or_insert_with(|| WARNING.to_owned());
}

fn port(entry: &InstanceInfo, query: &Query) -> Result<(Port, bool), String> {
    let enabled = |port: Option<Port>| port.filter(|port| port.enabled);
    match (enabled(entry.port), enabled(entry.secure_port)) {
        (_, Some(port)) if query.secure => Ok((port, true)),
        _ if query.secure => Err("the entry has no enabled secure port".into()),
        (Some(port), _) => Ok((port, false)),
        (None, Some(port)) => Ok((port, true)),
        (None, None) => Err("the entry has no enabled port".into()),
    }
}

fn status(entry: &InstanceInfo) -> InstanceStatus {
    match entry.status {
        Status::Up => match entry.metadata.get(STATUS).map(String::as_str) {
            Some(WARNING) => InstanceStatus::Warning,
            Some(DRAINING) => InstanceStatus::Draining,
            _ => InstanceStatus::Passing,
        },
        Status::OutOfService => InstanceStatus::Draining,
        // On its way out of service, for the time between two requests.
        Status::Starting if is_draining(entry) => InstanceStatus::Draining,
        Status::Down | Status::Starting | Status::Unknown => InstanceStatus::Critical,
    }
}

fn metadata(service: &str, instance: &Instance, incarnation: &str) -> BTreeMap<String, String> {
    let mut metadata = instance.metadata().clone();
    let mut set = |key: &str, value: String| metadata.insert(key.to_owned(), value);
    set(INCARNATION, incarnation.to_owned());
    if instance_id(service, instance) != instance.id().as_str() {
        set(ID, instance.id().to_string());
    }
    if let Some(zone) = instance.zone() {
        set(ZONE, zone.to_owned());
    }
    if let Some(scheme) = instance.scheme().filter(|scheme| *scheme != "https") {
        set(SCHEME, scheme.to_owned());
    }
    if let Some(started_at_ms) = instance.started_at_ms() {
        set(STARTED_AT_MS, started_at_ms.to_string());
    }
    if instance.priority() != 0 {
        set(PRIORITY, instance.priority().to_string());
    }
    if instance.weight() != 1 {
        set(WEIGHT, instance.weight().to_string());
    }
    if !instance.tags().is_empty() {
        set(TAGS, serde_json::json!(instance.tags()).to_string());
    }
    match instance.status() {
        InstanceStatus::Draining => drop(set(STATUS, DRAINING.into())),
        InstanceStatus::Warning => drop(set(STATUS, WARNING.into())),
        _ => {}
    }
    metadata
}

/// Takes our keys out of `metadata`.
fn with_metadata(mut instance: Instance, metadata: &BTreeMap<String, String>) -> Instance {
    for (key, value) in metadata {
        instance = match key.as_str() {
            ZONE => instance.with_text("zone", value),
            SCHEME => instance.with_scheme(value.as_str()),
            TAGS => match serde_json::from_str::<Vec<String>>(value) {
                Ok(tags) => instance.with_tags(tags),
                Err(_) => instance,
            },
            STARTED_AT_MS => instance.with_text("started_at_ms", value),
            PRIORITY => instance.with_text("priority", value),
            WEIGHT => instance.with_text("weight", value),
            key if key.starts_with(OURS) => instance,
            _ => instance.with_metadata(key.as_str(), value.as_str()),
        };
    }
    instance
}

/// Escapes the characters that Tomcat and Jersey accept in no segment of a path, escaped or not.
fn escaped(name: &str) -> String {
    if matches!(name, "." | "..") {
        return name.replace('.', "%2E");
    }
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            c if c.is_control() || matches!(c, '%' | '/' | '\\' | ';') => {
                let _infallible = write!(escaped, "%{:02X}", u32::from(c));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

const OURS: &str = "tower-sd-";
const DRAINING: &str = "draining";
const WARNING: &str = "warning";
const ID: &str = "tower-sd-id";
const INCARNATION: &str = "tower-sd-incarnation";
const PRIORITY: &str = "tower-sd-priority";
const SCHEME: &str = "tower-sd-scheme";
const STARTED_AT_MS: &str = "tower-sd-started-at-ms";
const STATUS: &str = "tower-sd-status";
const TAGS: &str = "tower-sd-tags";
const WEIGHT: &str = "tower-sd-weight";
/// Spring Cloud's.
const ZONE: &str = "zone";
/// Servers have no limit, and each client reads all of it every 30 s.
const MAX_METADATA: usize = 64 * 1024;
