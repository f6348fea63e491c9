//! How an instance is written into a value, and read from one.

mod kitex_json;
mod kratos_json;
mod naming_json;
mod raw_address;

use std::fmt::Debug;

use serde_json::Value;
use tower_sd_core::{Announcement, BoxError, Instance};

pub use self::{
    kitex_json::KitexJson, kratos_json::KratosJson, naming_json::NamingJson,
    raw_address::RawAddress,
};

/// The format of the values under `<prefix>/<service>/`.
///
/// # Contract
///
/// - `decode(id, encode(announcement))` must be the announced instance, as far as the format has
///   places for it.
/// - `encode` should write [`Announcement::incarnation`] where the format has a place for it.
/// - `decode` must never panic: the bytes are untrusted.
pub trait Codec: Debug + Send + Sync + 'static {
    /// Writes an announced instance.
    ///
    /// # Errors
    ///
    /// The format has no way to write it.
    fn encode(&self, announcement: &Announcement) -> Result<Vec<u8>, BoxError>;

    /// Reads an instance; `id` is the unescaped part of its key behind the service.
    ///
    /// # Errors
    ///
    /// The value is not of this format.
    fn decode(&self, id: &str, value: &[u8]) -> Result<Instance, BoxError>;
}

/// Splits `host:port`, where an IPv6 host stands in brackets.
fn host_and_port(address: &str) -> Result<(&str, u16), BoxError> {
    let split = address.rsplit_once(':');
    let (host, port) = split.ok_or("the address has no port")?;
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let host = match bare {
        Some(ipv6) => ipv6,
        None if host.contains(':') => return Err("an IPv6 address needs brackets".into()),
        None => host,
    };
    if host.is_empty() {
        return Err("the address has no host".into());
    }
    Ok((host, port.parse()?))
}

/// A text as it is, and any other value as JSON.
fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
