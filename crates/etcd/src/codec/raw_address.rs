use tower_sd_core::{Announcement, BoxError, Instance};

use super::{Codec, host_and_port};

/// go-kit's value, and go-zero's: the address and nothing else.
///
/// It has the form `http://1.2.3.4:8080` or `1.2.3.4:8080`.
///
/// Weight, metadata and all the rest of an instance are lost; its id is the last part of its key.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct RawAddress;

impl Codec for RawAddress {
    fn encode(&self, announcement: &Announcement) -> Result<Vec<u8>, BoxError> {
        let instance = &announcement.instance;
        let text = match instance.scheme() {
            Some(scheme) => format!("{scheme}://{instance}"),
            None => instance.to_string(),
        };
        Ok(text.into_bytes())
    }

    fn decode(&self, id: &str, value: &[u8]) -> Result<Instance, BoxError> {
        let text = str::from_utf8(value)?.trim();
        let (scheme, address) = match text.split_once("://") {
            Some((scheme, address)) => (Some(scheme), address),
            None => (None, text),
        };
        let (host, port) = host_and_port(address.trim_end_matches('/'))?;
        if host.contains(|c: char| c.is_whitespace() || "/{}\"@".contains(c)) {
            return Err("not an address".into());
        }
        let instance = Instance::new(host, port).with_id(id);
        Ok(match scheme {
            Some(scheme) => instance.with_scheme(scheme),
            None => instance,
        })
    }
}
