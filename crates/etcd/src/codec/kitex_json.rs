use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tower_sd_core::{Announcement, BoxError, Instance};

use super::{Codec, host_and_port, text};

/// Kitex's value, below the prefix `kitex/registry-etcd`:
/// `{"network":"tcp","address":"host:port","weight":10,"tags":{}}`.
///
/// Its tags are what we call metadata. Scheme, zone and all the rest of an instance are lost; its
/// id is the last part of its key.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct KitexJson;

#[derive(Deserialize, Serialize)]
struct Entry {
    network: String,
    address: String,
    #[serde(default)]
    weight: Value,
    #[serde(default)]
    tags: Option<BTreeMap<String, String>>,
}

impl Codec for KitexJson {
    fn encode(&self, announcement: &Announcement) -> Result<Vec<u8>, BoxError> {
        let instance = &announcement.instance;
        let tags = instance.metadata().iter();
        let entry = Entry {
            network: "tcp".to_owned(),
            address: instance.to_string(),
            weight: instance.weight().into(),
            tags: Some(tags.map(|(key, value)| (key.to_string(), value.to_string())).collect()),
        };
        Ok(serde_json::to_vec(&entry)?)
    }

    fn decode(&self, id: &str, value: &[u8]) -> Result<Instance, BoxError> {
        let entry: Entry = serde_json::from_slice(value)?;
        if !entry.network.starts_with("tcp") {
            return Err(format!("the network is {:?}, not tcp", entry.network).into());
        }
        let (host, port) = host_and_port(&entry.address)?;
        let instance = Instance::new(host, port).with_id(id);
        let instance = match text(entry.weight) {
            // Kitex takes them for its default.
            none if matches!(&*none, "0" | "null") => instance,
            weight => instance.with_text("weight", &weight),
        };
        let tags = entry.tags.unwrap_or_default().into_iter();
        Ok(tags.fold(instance, |instance, (key, value)| instance.with_metadata(key, value)))
    }
}
