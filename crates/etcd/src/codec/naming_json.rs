use serde::Deserialize;
use serde_json::{Map, Value, json};
use tower_sd_core::{Announcement, BoxError, Instance};

use super::{Codec, host_and_port, text};

/// The JSON of etcd's `naming/endpoints`.
///
/// grpc-go's `etcd:///` resolver reads it.
///
/// Written as `{"Op":0,"Addr":"host:port","Metadata":{…}}`, where `Metadata` has the rest of the
/// [`Instance`], so that nothing of it is lost, and the incarnation of its registration. Read
/// leniently: a bare `{"Addr":"host:port"}` is an instance whose id is the last part of its key,
/// and metadata that is not ours becomes the instance's metadata.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct NamingJson;

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "Op", default)]
    op: u8,
    #[serde(rename = "Addr")]
    addr: String,
    #[serde(rename = "Metadata", default)]
    metadata: Value,
}

impl Codec for NamingJson {
    fn encode(&self, announcement: &Announcement) -> Result<Vec<u8>, BoxError> {
        let instance = &announcement.instance;
        let mut rest = serde_json::to_value(instance)?;
        if let Value::Object(rest) = &mut rest {
            rest.remove("host");
            rest.remove("port");
            rest.insert(INCARNATION.to_owned(), announcement.incarnation().into());
        }
        let entry = json!({ "Op": ADD, "Addr": instance.to_string(), "Metadata": rest });
        Ok(serde_json::to_vec(&entry)?)
    }

    fn decode(&self, id: &str, value: &[u8]) -> Result<Instance, BoxError> {
        let entry: Entry = serde_json::from_slice(value)?;
        if entry.op != ADD {
            return Err(format!("Op is {}, not {ADD} (add)", entry.op).into());
        }
        let (host, port) = host_and_port(&entry.addr)?;
        match entry.metadata {
            // What we write has it; the names of an instance's fields may be anyone's.
            Value::Object(rest) if rest.contains_key(INCARNATION) => {
                let ours = ours(host, port, rest.clone());
                Ok(ours.unwrap_or_else(|_foreign| foreign(id, host, port, rest)))
            }
            Value::Object(rest) => Ok(foreign(id, host, port, rest)),
            _ => Ok(Instance::new(host, port).with_id(id)),
        }
    }
}

fn ours(host: &str, port: u16, mut rest: Map<String, Value>) -> serde_json::Result<Instance> {
    rest.insert("host".to_owned(), host.into());
    rest.insert("port".to_owned(), port.into());
    // An entry with nonsense in one of these is read for the rest of it.
    let texts = ["priority", "started_at_ms", "weight", "zone"];
    let texts = texts.map(|name| (name, rest.remove(name).filter(|value| !value.is_null())));
    let instance = serde_json::from_value(Value::Object(rest))?;
    let texts = texts.into_iter().filter_map(|(name, value)| Some((name, text(value?))));
    Ok(texts.fold(instance, |instance: Instance, (name, text)| instance.with_text(name, &text)))
}

fn foreign(id: &str, host: &str, port: u16, rest: Map<String, Value>) -> Instance {
    let instance = Instance::new(host, port).with_id(id);
    rest.into_iter()
        .fold(instance, |instance, (key, value)| instance.with_metadata(key, text(value)))
}

const INCARNATION: &str = "incarnation";
/// etcd's `endpoints.Add`.
const ADD: u8 = 0;
