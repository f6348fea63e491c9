//! The instances of a Service's slices.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tower_sd_core::{Error, ErrorKind, Instance, InstanceStatus, Result};

use crate::{
    BACKEND, Family, Query,
    client::object::{Conditions, Endpoint, EndpointSlice, Port, SERVICE_NAME},
    error::FOLLOW,
};

/// The instances of one slice.
#[derive(Debug)]
pub(crate) struct Mapped {
    kind: AddressType,
    /// One for each endpoint, unless the port is missing.
    entries: Vec<Result<Instance>>,
    /// The names of the ports of a slice with endpoints, of which none is the query's.
    other_ports: Option<BTreeSet<String>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum AddressType {
    Ipv4,
    Ipv6,
    Name,
}

/// Maps one slice; what of it cannot be an instance is an error in its place.
pub(crate) fn slice(slice: &EndpointSlice, query: &Query, family: Family) -> Mapped {
    let kind = match slice.address_type.as_str() {
        "IPv4" => AddressType::Ipv4,
        "IPv6" => AddressType::Ipv6,
        _ => AddressType::Name,
    };
    let mut mapped = Mapped { kind, entries: Vec::new(), other_ports: None };
    let service = slice.metadata.labels.get(SERVICE_NAME);
    if service != Some(&query.service) {
        let message = format!("slice {:?} is of the service {service:?}", slice.metadata.name);
        mapped.entries.push(Err(malformed(message)));
        return mapped;
    }
    let Some(port) = chosen(&slice.ports, query) else {
        let names = tcp(&slice.ports).map(|port| port.name.clone().unwrap_or_default());
        mapped.other_ports = (!slice.endpoints.is_empty()).then(|| names.collect());
        return mapped;
    };
    let template = template(slice, port);
    let entries = slice.endpoints.iter().map(|endpoint| {
        let endpoint = endpoint.0.as_ref().map_err(|why| {
            malformed(format!("slice {:?}: an endpoint: {why}", slice.metadata.name))
        })?;
        let instance = instance(endpoint, kind, port, &template)?;
        // A pod has an address of each family.
        Ok(match (endpoint.pod(), kind, family) {
            (None, ..) => instance,
            (Some(pod), AddressType::Ipv6, Family::Both) => instance.with_id(format!("{pod}/ipv6")),
            (Some(pod), ..) => instance.with_id(pod),
        })
    });
    mapped.entries = entries.collect();
    mapped
}

/// The place of a slice that is malformed as a whole.
pub(crate) fn malformed_slice(error: Error) -> Mapped {
    Mapped { kind: AddressType::Name, entries: vec![Err(error)], other_ports: None }
}

/// Joins the slices of a service.
///
/// One address of each pod, unless those of both families are wanted; of other endpoints, those of
/// one family. Of an endpoint in several slices the fittest state. With a zone, the endpoints that
/// the hints allot to other zones get priority 1, provided that all ready ones have hints, some of
/// them for this zone.
///
/// # Errors
///
/// There are endpoints, and none has the port of the query.
pub(crate) fn join<'a>(
    slices: impl Iterator<Item = &'a Mapped> + Clone,
    query: &Query,
    family: Family,
    zone: Option<&str>,
) -> Result<Vec<Result<Instance>>> {
    let (mut entries, mut places) = (Vec::new(), HashMap::new());
    let unwanted = unwanted(&slices, family);
    let all = slices.clone().flat_map(|it| it.entries.iter().map(|entry| (it.kind, entry)));
    for (kind, entry) in all {
        let instance = match entry {
            Ok(instance) if Some(kind) != unwanted || is_pod(instance) => instance,
            Err(_) if Some(kind) != unwanted => {
                entries.push(entry.clone());
                continue;
            }
            _ => continue,
        };
        // The family first: two slices of a pod are written one after the other.
        let order = (Some(kind) == second(family), rank(instance));
        match places.entry(instance.id()) {
            Entry::Vacant(place) => {
                place.insert((entries.len(), order));
                entries.push(Ok(instance.clone()));
            }
            Entry::Occupied(mut place) if order < place.get().1 => {
                place.get_mut().1 = order;
                if let Some(known) = entries.get_mut(place.get().0) {
                    *known = Ok(instance.clone());
                }
            }
            Entry::Occupied(_) => {}
        }
    }
    let others: Vec<_> = slices.filter_map(|slice| slice.other_ports.as_ref()).collect();
    if entries.is_empty() && !others.is_empty() {
        return Err(no_port(query, &others.into_iter().flatten().collect()));
    }
    // Their endpoints have not left: a controller writes the slices one after the other.
    entries.extend(
        others.into_iter().map(|ports| {
            Err(malformed(format!("a slice lacks the port; its TCP ports: {ports:?}")))
        }),
    );
    if let Some(zone) = zone {
        prefer(&mut entries, zone);
    }
    Ok(entries)
}

/// Of the two families that which is used in default of the other.
fn second(family: Family) -> Option<AddressType> {
    match family {
        Family::Both => None,
        Family::Ipv4First => Some(AddressType::Ipv6),
        Family::Ipv6First => Some(AddressType::Ipv4),
    }
}

/// Of the two families that which is left out where no pod names what belongs together.
fn unwanted<'a>(
    slices: &(impl Iterator<Item = &'a Mapped> + Clone),
    family: Family,
) -> Option<AddressType> {
    let second = second(family)?;
    let of_first = slices.clone().filter(|it| it.kind != second && it.kind != AddressType::Name);
    let mut instances = of_first.flat_map(|it| &it.entries).flatten();
    instances.any(|instance| !is_pod(instance)).then_some(second)
}

fn is_pod(instance: &Instance) -> bool {
    instance.metadata().get(POD).is_some_and(|pod| pod == instance.id().as_str())
}

fn no_port(query: &Query, others: &BTreeSet<&String>) -> Error {
    let names: Vec<&str> = others.iter().map(|name| name.as_str()).collect();
    let (service, names) = (&query.service, names.join(", "));
    let message = match &query.port {
        Some(port) => format!("service {service} has no TCP port {port:?}; its ports: {names}"),
        None if others.is_empty() => format!("service {service} has no TCP port"),
        None => format!(
            "service {service} has several TCP ports: {names}; name one, as in \"{service}:{}\"",
            others.first().map_or("http", |name| name.as_str())
        ),
    };
    // The next event of the Service may bring the port.
    Error::new(ErrorKind::NotFound, BACKEND, FOLLOW).transient().with_message(message)
}

/// As kube-proxy: hints count only if every endpoint that may get requests has them.
fn prefer(entries: &mut [Result<Instance>], zone: &str) {
    let hints = |instance: &Instance| instance.metadata().get(ZONE_HINTS).cloned();
    let allots = |hints: &str| hints.split(',').any(|hint| hint == zone);
    let ready = entries.iter().flatten().filter(|instance| instance.accepts_requests());
    let hinted: Option<Vec<String>> = ready.map(hints).collect();
    if !hinted.is_some_and(|hinted| hinted.iter().any(|hints| allots(hints))) {
        return;
    }
    for instance in entries.iter_mut().flatten() {
        if !hints(instance).is_some_and(|hints| allots(&hints)) {
            *instance = instance.clone().with_priority(1);
        }
    }
}

fn tcp(ports: &[Port]) -> impl Iterator<Item = &Port> {
    ports.iter().filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"))
}

/// The port of a query; none of a query without a name while there are several.
fn chosen<'a>(ports: &'a [Port], query: &Query) -> Option<&'a Port> {
    let mut named = tcp(ports).filter(|port| query.port.is_none() || port.name == query.port);
    named.next().filter(|_| named.next().is_none())
}

/// What all instances of a slice have in common, as an instance without an address.
fn template(slice: &EndpointSlice, port: &Port) -> Instance {
    let labels = slice.metadata.labels.iter().filter(|(name, _)| !is_of_kubernetes(name));
    let template =
        labels.fold(Instance::new("", 0), |it, (name, value)| it.with_metadata(name, value));
    let Some(protocol) = port.app_protocol.as_deref().filter(|it| !it.is_empty()) else {
        return template;
    };
    let template = template.with_metadata(APP_PROTOCOL, protocol);
    match scheme(protocol) {
        Some(scheme) => template.with_scheme(scheme),
        None => template,
    }
}

fn instance(
    endpoint: &Endpoint,
    kind: AddressType,
    port: &Port,
    template: &Instance,
) -> Result<Instance> {
    let Some(address) = endpoint.addresses.first() else {
        return Err(malformed("an endpoint has no address".into()));
    };
    let host = match kind {
        AddressType::Ipv4 => address.parse::<Ipv4Addr>().map(IpAddr::from).ok(),
        AddressType::Ipv6 => address.parse::<Ipv6Addr>().map(IpAddr::from).ok(),
        AddressType::Name => None,
    };
    let host = match (host, kind) {
        (Some(ip), _) => ip.to_string(),
        (None, AddressType::Name) => address.clone(),
        (None, _) => return Err(malformed(format!("{address:?} is no {kind:?} address"))),
    };
    let number = port.port.and_then(|number| u16::try_from(number).ok()).filter(|it| *it != 0);
    let Some(number) = number else {
        let message = format!("port {:?} of {host} cannot be connected to", port.port);
        return Err(malformed(message));
    };
    let mut instance = Instance::new(host, number).with_status(status(endpoint.conditions));
    if let Some(scheme) = template.scheme() {
        instance = instance.with_scheme(scheme);
    }
    for (name, value) in template.metadata() {
        instance = instance.with_metadata(name, value);
    }
    if let Some(zone) = &endpoint.zone {
        instance = instance.with_text("zone", zone);
    }
    let zones: Vec<&str> = endpoint.hints.for_zones.iter().map(|zone| zone.name.as_str()).collect();
    let zones = Some(zones.join(",")).filter(|zones| !zones.is_empty());
    for (key, value) in [
        (POD, endpoint.pod()),
        (NODE, endpoint.node_name.as_deref()),
        (HOSTNAME, endpoint.hostname.as_deref()),
        (ZONE_HINTS, zones.as_deref()),
    ] {
        if let Some(value) = value {
            instance = instance.with_metadata(key, value);
        }
    }
    Ok(instance)
}

/// A ready endpoint gets requests; one that serves until it has terminated gets them only when no
/// endpoint is ready, as from kube-proxy.
fn status(conditions: Conditions) -> InstanceStatus {
    let ready = conditions.ready.unwrap_or(true);
    let (serving, terminating) =
        (conditions.serving.unwrap_or(true), conditions.terminating.unwrap_or(false));
    match (ready, serving && terminating) {
        (true, _) => InstanceStatus::Passing,
        (false, true) => InstanceStatus::Draining,
        (false, false) => InstanceStatus::Critical,
    }
}

/// The fittest state is the least.
fn rank(instance: &Instance) -> u8 {
    match instance.status() {
        status if status.accepts_requests() => 0,
        InstanceStatus::Draining => 1,
        _ => 2,
    }
}

/// The scheme that a port's `appProtocol` names.
///
/// Of the names that IANA, Kubernetes, Istio and clouds give, most are no scheme of a URL.
fn scheme(app_protocol: &str) -> Option<&'static str> {
    match app_protocol.to_ascii_lowercase().as_str() {
        "http" | "http2" | "kubernetes.io/h2c" | "kubernetes.io/ws" => Some("http"),
        "https" | "kubernetes.io/wss" => Some("https"),
        "grpc" => Some("grpc"),
        "grpcs" => Some("grpcs"),
        _ => None,
    }
}

/// Labels of the machinery; `app.kubernetes.io/version` and the like are the user's.
fn is_of_kubernetes(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else {
        return false;
    };
    let below =
        |parent| domain.strip_suffix(parent).is_some_and(|it| it.is_empty() || it.ends_with('.'));
    domain != "app.kubernetes.io" && (below("kubernetes.io") || below("k8s.io"))
}

fn malformed(message: String) -> Error {
    Error::new(ErrorKind::Protocol, BACKEND, FOLLOW).permanent().with_message(message)
}

const POD: &str = "pod";
const NODE: &str = "node";
const HOSTNAME: &str = "hostname";
const APP_PROTOCOL: &str = "app-protocol";
const ZONE_HINTS: &str = "zone-hints";
