use std::collections::BTreeMap;

use serde::Deserialize;
use tower_sd_core::{Announcement, BoxError, Instance};

use super::{Codec, host_and_port};

/// Kratos' value, below the prefix `/microservices`, for reading only:
/// `{"id":"1","name":"cart","version":"v1","metadata":{},"endpoints":["grpc://host:port?isSecure=false"]}`.
///
/// A server has an endpoint for each of its protocols; the one of ours is read. Its writers list
/// all of these, and a registration has one: [`encode`](Codec::encode) always fails.
#[derive(Clone, Debug)]
pub struct KratosJson {
    protocol: String,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
    endpoints: Vec<String>,
}

impl KratosJson {
    /// Reads the endpoints of this protocol: `http` or `grpc`.
    pub fn new(protocol: impl Into<String>) -> Self {
        Self { protocol: protocol.into() }
    }
}

impl Codec for KratosJson {
    fn encode(&self, _announcement: &Announcement) -> Result<Vec<u8>, BoxError> {
        Err("the format of Kratos is only read".into())
    }

    fn decode(&self, _id: &str, value: &[u8]) -> Result<Instance, BoxError> {
        let entry: Entry = serde_json::from_slice(value)?;
        let ours = |endpoint: &String| {
            let (protocol, rest) = endpoint.split_once("://")?;
            (protocol == self.protocol).then(|| rest.to_owned())
        };
        let endpoint = entry.endpoints.iter().find_map(ours);
        let endpoint = endpoint.ok_or_else(|| format!("no endpoint for {}", self.protocol))?;
        let (address, query) = endpoint.split_once('?').unwrap_or((&endpoint, ""));
        let (host, port) = host_and_port(address.trim_end_matches('/'))?;
        let is_secure = query.split('&').any(|option| option == "isSecure=true");
        let instance = Instance::new(host, port).with_id(entry.id).with_scheme(if is_secure {
            "https"
        } else {
            "http"
        });
        let instance = match entry.version.is_empty() {
            true => instance,
            false => instance.with_metadata("version", entry.version),
        };
        let metadata = entry.metadata.unwrap_or_default().into_iter();
        Ok(metadata.fold(instance, |instance, (key, value)| instance.with_metadata(key, value)))
    }
}
