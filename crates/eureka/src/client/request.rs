//! What is sent.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::reply::Status;

/// Body of `POST apps/{APP}`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RegistrationRequest {
    pub(crate) instance: InstanceRequest,
}

/// An entry as it is registered.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InstanceRequest {
    pub(crate) instance_id: String,
    pub(crate) app: String,
    pub(crate) host_name: String,
    pub(crate) ip_addr: String,
    pub(crate) status: Status,
    /// None. Without this field some servers fail.
    #[serde(rename = "overriddenstatus")]
    pub(crate) overridden_status: Status,
    pub(crate) port: PortRequest,
    pub(crate) secure_port: PortRequest,
    pub(crate) vip_address: String,
    pub(crate) secure_vip_address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) home_page_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status_page_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) health_check_url: Option<String>,
    pub(crate) data_center_info: OwnDataCenter,
    pub(crate) lease_info: LeaseRequest,
    pub(crate) metadata: BTreeMap<String, String>,
    /// Milliseconds since the Unix epoch, as a string, as Java's client writes it.
    #[serde(serialize_with = "as_string")]
    pub(crate) last_dirty_timestamp: i64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct PortRequest {
    #[serde(rename = "$")]
    pub(crate) number: u16,
    #[serde(rename = "@enabled", serialize_with = "as_string")]
    pub(crate) enabled: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LeaseRequest {
    pub(crate) renewal_interval_in_secs: u64,
    pub(crate) duration_in_secs: u64,
}

/// The data centre of everything that is not Amazon's.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct OwnDataCenter {
    #[serde(rename = "@class")]
    class: &'static str,
    name: &'static str,
}

impl OwnDataCenter {
    pub(crate) const INFO: Self =
        Self { class: "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", name: "MyOwn" };
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

fn as_string<T: ToString, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}
