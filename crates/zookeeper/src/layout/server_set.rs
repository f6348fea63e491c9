use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tower_sd_core::{Announcement, BoxError, Instance, InstanceStatus};

use super::Layout;
use crate::path;

/// The JSON of Twitter's ServerSets, which Finagle and Aurora write and read.
///
/// Written as `{"serviceEndpoint":{"host","port"},"additionalEndpoints":{},"status":"ALIVE",
/// "metadata":{…}}` in nodes named `member_…`; other nodes are errors. Weight and tags are lost; a
/// draining instance is `STOPPING`, a critical one `DEAD`. A `shard` is read as metadata, and
/// written from it.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ServerSet;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    service_endpoint: Endpoint,
    status: String,
    #[serde(default)]
    shard: Option<i64>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
struct Endpoint {
    host: String,
    port: u16,
}

impl Layout for ServerSet {
    fn node(&self, id: &str) -> String {
        format!("{MEMBER}{}", path::escape(id))
    }

    fn encode(&self, announcement: &Announcement) -> Result<Vec<u8>, BoxError> {
        let instance = &announcement.instance;
        let mut entry = Map::new();
        let endpoint = json!({ "host": instance.host(), "port": instance.port() });
        entry.insert("serviceEndpoint".to_owned(), endpoint);
        entry.insert("additionalEndpoints".to_owned(), json!({}));
        let status = match instance.status() {
            InstanceStatus::Passing | InstanceStatus::Warning => "ALIVE",
            InstanceStatus::Draining => "STOPPING",
            _ => "DEAD",
        };
        entry.insert("status".to_owned(), status.into());
        let mut metadata = instance.metadata().clone();
        if let Some(shard) = metadata.remove(SHARD).and_then(|shard| shard.parse::<i64>().ok()) {
            entry.insert(SHARD.to_owned(), shard.into());
        }
        metadata.insert(INCARNATION.to_owned(), announcement.incarnation().to_owned());
        entry.insert("metadata".to_owned(), json!(metadata));
        Ok(serde_json::to_vec(&entry)?)
    }

    fn decode(&self, node: &str, data: &[u8]) -> Result<Instance, BoxError> {
        let id = node.strip_prefix(MEMBER).ok_or("not a member_ node")?;
        let entry: Entry = serde_json::from_slice(data)?;
        let Endpoint { host, port } = entry.service_endpoint;
        let status = match entry.status.as_str() {
            "ALIVE" => InstanceStatus::Passing,
            "STOPPING" => InstanceStatus::Draining,
            _ => InstanceStatus::Critical,
        };
        let instance = Instance::new(host, port).with_id(path::unescape(id)).with_status(status);
        let instance = match entry.shard {
            Some(shard) => instance.with_metadata(SHARD, shard.to_string()),
            None => instance,
        };
        let metadata = entry.metadata.unwrap_or_default().into_iter();
        let metadata = metadata.filter(|(key, _)| key != INCARNATION);
        Ok(metadata.fold(instance, |instance, (key, value)| {
            instance.with_metadata(key, super::text(value))
        }))
    }
}

/// What the names of all members begin with; Finagle ignores others.
const MEMBER: &str = "member_";
const SHARD: &str = "shard";
const INCARNATION: &str = "tower-sd-incarnation";
