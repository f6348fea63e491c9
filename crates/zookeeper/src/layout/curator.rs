use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tower_sd_core::{Announcement, BoxError, Instance, InstanceStatus};

use super::Layout;
use crate::path;

/// The JSON of Apache Curator's service discovery.
///
/// With the payload of Spring Cloud ZooKeeper, so that its services see ours.
///
/// Written as `x-discovery`'s `ServiceInstance` of type `DYNAMIC`, whose payload is a
/// `ZookeeperInstance`: its metadata has that of the [`Instance`], and the rest of it as a JSON
/// text under `tower-sd`. Read leniently: any payload will do, and the class that it names is not
/// considered. An instance with `enabled: false` is draining, and so is one that Spring has taken
/// out of service. One whose `sslPort` is its only port, or equal to `port`, has the scheme
/// `https`; of two different ones `port` is used.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Curator;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    id: Option<String>,
    address: String,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    ssl_port: Option<u16>,
    #[serde(default)]
    payload: Value,
    #[serde(default, rename = "registrationTimeUTC")]
    registered_at_ms: Option<i64>,
    #[serde(default)]
    service_type: Option<String>,
    #[serde(default)]
    enabled: Option<bool>,
}

impl Layout for Curator {
    fn encode(&self, announcement: &Announcement) -> Result<Vec<u8>, BoxError> {
        let instance = &announcement.instance;
        let mut ours = serde_json::to_value(instance)?;
        if let Value::Object(ours) = &mut ours {
            for elsewhere in ["id", "host", "port", "metadata"] {
                ours.remove(elsewhere);
            }
            ours.insert("incarnation".to_owned(), announcement.incarnation().into());
        }
        let mut metadata = instance.metadata().clone();
        metadata.insert(OURS.to_owned(), ours.to_string());
        if !instance.status().accepts_requests() {
            metadata.insert(SPRING_STATUS.to_owned(), "OUT_OF_SERVICE".to_owned());
        }
        // Spring takes an instance with this port for one of TLS.
        let ssl_port = (instance.scheme() == Some("https")).then(|| instance.port());
        let entry = json!({
            "name": announcement.service,
            "id": instance.id().as_str(),
            "address": instance.host(),
            "port": instance.port(),
            "sslPort": ssl_port,
            "payload": {
                "@class": SPRING_CLASS,
                "id": instance.id().as_str(),
                "name": announcement.service,
                "metadata": metadata,
            },
            "registrationTimeUTC": instance.started_at_ms().unwrap_or_default(),
            "serviceType": "DYNAMIC",
            "uriSpec": { "parts": uri_parts() },
        });
        Ok(serde_json::to_vec(&entry)?)
    }

    fn decode(&self, node: &str, data: &[u8]) -> Result<Instance, BoxError> {
        let entry: Entry = serde_json::from_slice(data)?;
        if let Some(unknown) = entry.service_type.filter(|it| !TYPES.contains(&it.as_str())) {
            return Err(format!("serviceType is {unknown:?}").into());
        }
        let plain = entry.port.filter(|port| *port != 0);
        let secure = entry.ssl_port.filter(|port| *port != 0);
        // Spring writes the port of TLS as both.
        let is_secure = plain.is_none() || secure == plain;
        let port = plain.or(secure).ok_or("it has neither port nor sslPort")?;
        let id = entry.id.filter(|id| !id.is_empty()).unwrap_or_else(|| path::unescape(node));
        let mut metadata = metadata(entry.payload);
        // Spring gives no requests to an instance with another status.
        let status = metadata.get(SPRING_STATUS).map(|status| status.trim().to_uppercase());
        let is_out = status.is_some_and(|status| !matches!(&*status, "" | "UP"));
        if is_out {
            metadata.remove(SPRING_STATUS);
        }
        let instance =
            match metadata.remove(OURS).and_then(|it| ours(&it, &id, &entry.address, port)) {
                Some(instance) => instance,
                None => foreign(&id, &entry.address, port, is_secure, entry.registered_at_ms),
            };
        let instance = metadata
            .into_iter()
            .fold(instance, |instance, (key, value)| instance.with_metadata(key, value));
        let is_out = is_out || entry.enabled == Some(false);
        Ok(match is_out && instance.status().accepts_requests() {
            true => instance.with_status(InstanceStatus::Draining),
            false => instance,
        })
    }
}

/// Spring's payload has its metadata in an object; any other object is metadata itself.
fn metadata(payload: Value) -> BTreeMap<String, String> {
    let Value::Object(mut payload) = payload else { return BTreeMap::new() };
    let fields = match payload.remove("metadata") {
        Some(Value::Object(metadata)) => metadata,
        Some(other) => {
            payload.insert("metadata".to_owned(), other);
            payload
        }
        None => payload,
    };
    let fields = fields.into_iter().filter(|(key, _)| key != "@class");
    fields.map(|(key, value)| (key, super::text(value))).collect()
}

fn ours(text: &str, id: &str, host: &str, port: u16) -> Option<Instance> {
    let mut fields: Map<String, Value> = serde_json::from_str(text).ok()?;
    fields.insert("id".to_owned(), id.into());
    fields.insert("host".to_owned(), host.into());
    fields.insert("port".to_owned(), port.into());
    // An entry with nonsense in one of these is read for the rest of it.
    let texts = ["priority", "started_at_ms", "weight", "zone"];
    let texts = texts.map(|name| (name, fields.remove(name).filter(|value| !value.is_null())));
    let instance = serde_json::from_value(Value::Object(fields)).ok()?;
    let texts = texts.into_iter().filter_map(|(name, value)| Some((name, super::text(value?))));
    Some(texts.fold(instance, |instance: Instance, (name, text)| instance.with_text(name, &text)))
}

fn foreign(id: &str, host: &str, port: u16, secure: bool, since: Option<i64>) -> Instance {
    let instance = Instance::new(host, port).with_id(id);
    let instance = if secure { instance.with_scheme("https") } else { instance };
    match since.and_then(|since| u64::try_from(since).ok()).filter(|since| *since > 0) {
        Some(since) => instance.with_started_at_ms(since),
        None => instance,
    }
}

/// `{scheme}://{address}:{port}`, Spring's default.
fn uri_parts() -> Value {
    let part = |(value, variable): (&str, bool)| json!({ "value": value, "variable": variable });
    let parts = [("scheme", true), ("://", false), ("address", true), (":", false), ("port", true)];
    parts.map(part).into_iter().collect()
}

/// Curator's types of services.
const TYPES: [&str; 4] = ["DYNAMIC", "DYNAMIC_SEQUENTIAL", "STATIC", "PERMANENT"];
/// The key of what Curator has no place for.
const OURS: &str = "tower-sd";
/// Spring's key of a status.
const SPRING_STATUS: &str = "instance_status";
const SPRING_CLASS: &str = "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance";
