//! How an instance is written into a value, and read from one.

mod kitex_json;
mod kratos_json;
mod naming_json;
mod raw_address;

use std::fmt::Debug;

use tower_sd_core::{BoxError, Instance};

pub use self::{
    kitex_json::KitexJson, kratos_json::KratosJson, naming_json::NamingJson,
    raw_address::RawAddress,
};

/// The format of the values: one per way in which a service is found under `<prefix>/<service>/`.
///
/// # Contract
///
/// - `decode(id, encode(instance))` is the instance, as far as the format can say it.
/// - `decode` never panics: the bytes are anybody's.
pub trait Codec: Debug + Send + Sync + 'static {
    /// Writes an instance.
    ///
    /// # Errors
    ///
    /// The format cannot say it.
    fn encode(&self, instance: &Instance) -> Result<Vec<u8>, BoxError>;

    /// Reads an instance; `id` is what its key says behind the service, unescaped.
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

#[cfg(test)]
mod tests;
