//! What is understood of the answers.
//!
//! Servers of several generations write the same value as a number or as a string, and a list of
//! one element as that element. Fields may be missing.

use std::{collections::BTreeMap, fmt, marker::PhantomData, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

/// `GET apps`, `GET apps/delta`, `GET vips/…`.
#[derive(Debug, Deserialize)]
pub(crate) struct ApplicationsReply {
    pub(crate) applications: Applications,
}

/// `GET apps/{APP}`.
#[derive(Debug, Deserialize)]
pub(crate) struct ApplicationReply {
    pub(crate) application: Application,
}

/// `GET apps/{APP}/{ID}`.
#[derive(Debug, Deserialize)]
pub(crate) struct InstanceReply {
    pub(crate) instance: InstanceInfo,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Applications {
    /// The counts by status, as in `DOWN_2_UP_31_`.
    #[serde(default, rename = "apps__hashcode", deserialize_with = "text")]
    pub(crate) hash: String,
    #[serde(default, deserialize_with = "one_or_many")]
    pub(crate) application: Vec<Application>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Application {
    #[serde(default, deserialize_with = "text")]
    pub(crate) name: String,
    #[serde(default, deserialize_with = "instances")]
    pub(crate) instance: Vec<Arc<InstanceInfo>>,
}

/// One entry, of any program.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InstanceInfo {
    /// Missing in entries of old clients, whose host name is their id.
    #[serde(default, deserialize_with = "text")]
    pub(crate) instance_id: String,
    #[serde(default, deserialize_with = "text")]
    pub(crate) app: String,
    #[serde(default, deserialize_with = "text")]
    pub(crate) host_name: String,
    #[serde(default, deserialize_with = "text")]
    pub(crate) ip_addr: String,
    #[serde(default)]
    pub(crate) status: Status,
    #[serde(default)]
    overridden_status: Status,
    /// The same in the other spelling.
    #[serde(default, rename = "overriddenstatus")]
    overridden_status_of_old: Status,
    #[serde(default)]
    pub(crate) port: Option<Port>,
    #[serde(default)]
    pub(crate) secure_port: Option<Port>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) data_center_info: DataCenterInfo,
    #[serde(default, deserialize_with = "texts")]
    pub(crate) metadata: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "number")]
    pub(crate) last_dirty_timestamp: i64,
    #[serde(default)]
    pub(crate) action_type: Action,
}

/// The status of an entry.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Status {
    Up,
    Down,
    Starting,
    OutOfService,
    /// Anything else, too.
    #[default]
    Unknown,
}

/// What a delta has done to an entry.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Action {
    Deleted,
    /// Added, modified, or not given.
    #[default]
    Present,
}

/// A port; wider than 16 bits, as servers accept any number.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
pub(crate) struct Port {
    #[serde(default, rename = "$", deserialize_with = "number")]
    pub(crate) number: i64,
    #[serde(default, rename = "@enabled", deserialize_with = "boolean")]
    pub(crate) enabled: bool,
}

/// Where the instance runs: Amazon's has a zone.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub(crate) struct DataCenterInfo {
    #[serde(default, deserialize_with = "texts")]
    pub(crate) metadata: BTreeMap<String, String>,
}

impl InstanceInfo {
    /// The id: that of the entry, else the host name, as in Netflix's client.
    pub(crate) fn id(&self) -> &str {
        if self.instance_id.is_empty() { &self.host_name } else { &self.instance_id }
    }

    /// The status that an operator has set; `Unknown` without one.
    pub(crate) fn overridden_status(&self) -> Status {
        self.overridden_status.min(self.overridden_status_of_old)
    }
}

impl Status {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "UP",
            Self::Down => "DOWN",
            Self::Starting => "STARTING",
            Self::OutOfService => "OUT_OF_SERVICE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let known = [Self::Up, Self::Down, Self::Starting, Self::OutOfService];
        let text = text(deserializer)?;
        Ok(known.into_iter().find(|status| status.as_str() == text).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(if text(deserializer)? == "DELETED" { Self::Deleted } else { Self::Present })
    }
}

/// A value, or null for the default.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A list, or its only element.
fn one_or_many<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct OneOrMany<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list or its only element")
        }

        fn visit_unit<E>(self) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(|one| vec![one])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(element) = seq.next_element()? {
                list.push(element);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_any(OneOrMany(PhantomData))
}

/// The entries of an application; one that is no entry at all has neither id nor address.
fn instances<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Arc<InstanceInfo>>, D::Error> {
    let values: Vec<Value> = one_or_many(deserializer)?;
    let parse = |value| Arc::new(serde_json::from_value(value).unwrap_or_default());
    Ok(values.into_iter().map(parse).collect())
}

/// A string; another scalar as it is written, and nothing for anything else.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(shown(Value::deserialize(deserializer)?).unwrap_or_default())
}

/// A number, written as one or as a string; 0 for anything else.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Ok(text(deserializer)?.trim().parse().unwrap_or_default())
}

/// A boolean, written as one or as a string; false for anything else.
fn boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(text(deserializer)?.trim().eq_ignore_ascii_case("true"))
}

/// A map of strings.
///
/// An empty one may name its Java class, or be null; a value that is no scalar is left out.
fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let Value::Object(pairs) = Value::deserialize(deserializer)? else {
        return Ok(BTreeMap::new());
    };
    let pairs = pairs.into_iter().filter(|(key, _)| key != "@class");
    Ok(pairs.filter_map(|(key, value)| Some((key, shown(value)?))).collect())
}

fn shown(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(json: &str) -> InstanceInfo {
        serde_json::from_str(json).expect("understood")
    }

    #[test]
    fn both_spellings_of_each_value_are_understood() {
        let new = instance(
            r#"{"instanceId":"a","app":"X","hostName":"h","ipAddr":"10.0.0.1","status":"UP",
            "overriddenStatus":"OUT_OF_SERVICE","port":{"$":80,"@enabled":true},
            "securePort":{"$":443,"@enabled":false},"metadata":{"k":"7"},
            "lastDirtyTimestamp":17,"actionType":"ADDED"}"#,
        );
        let old = instance(
            r#"{"instanceId":"a","app":"X","hostName":"h","ipAddr":"10.0.0.1","status":"UP",
            "overriddenstatus":"OUT_OF_SERVICE","port":{"$":"80","@enabled":"true"},
            "securePort":{"$":"443","@enabled":"false"},"metadata":{"@class":"x","k":7},
            "lastDirtyTimestamp":"17","actionType":"MODIFIED"}"#,
        );
        assert_eq!(old.overridden_status(), Status::OutOfService);
        let InstanceInfo { overridden_status, overridden_status_of_old, .. } = new;
        let old = InstanceInfo { overridden_status, overridden_status_of_old, ..old };
        assert_eq!(new, old);
        assert_eq!(new.port, Some(Port { number: 80, enabled: true }));
        assert_eq!(new.overridden_status(), Status::OutOfService);
    }

    #[test]
    fn single_element_stands_for_a_list_of_one() {
        let listed = r#"{"applications":{"versions__delta":"1","apps__hashcode":"UP_1_",
            "application":[{"name":"X","instance":[{"instanceId":"a"}]}]}}"#;
        let single = r#"{"applications":{"versions__delta":1,"apps__hashcode":"UP_1_",
            "application":{"name":"X","instance":{"instanceId":"a"}}}}"#;
        for json in [listed, single] {
            let reply: ApplicationsReply = serde_json::from_str(json).expect("understood");
            let [x] = &*reply.applications.application else { panic!("{reply:?}") };
            assert_eq!((x.name.as_str(), x.instance[0].id()), ("X", "a"));
            assert_eq!(reply.applications.hash, "UP_1_");
        }
        let empty = r#"{"applications":{"apps__hashcode":"","application":null}}"#;
        let reply: ApplicationsReply = serde_json::from_str(empty).expect("understood");
        assert!(reply.applications.application.is_empty());
    }

    #[test]
    fn unknown_status_and_empty_metadata_are_no_errors() {
        let strange = instance(
            r#"{"hostName":"h","status":"SLEEPY",
            "metadata":{"@class":"java.util.Collections$EmptyMap"},"port":null}"#,
        );
        assert_eq!((strange.status, strange.id()), (Status::Unknown, "h"));
        assert!(strange.metadata.is_empty() && strange.port.is_none());
        let null = r#"{"status":null,"metadata":null,"dataCenterInfo":null}"#;
        assert_eq!(instance(null), InstanceInfo::default());
        let both = r#"{"overriddenstatus":"DOWN","overriddenStatus":"UNKNOWN"}"#;
        assert_eq!(instance(both).overridden_status(), Status::Down);
    }
}
