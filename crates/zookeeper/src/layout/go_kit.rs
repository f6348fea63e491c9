use tower_sd_core::{Announcement, BoxError, Instance};

use super::Layout;
use crate::path;

/// The address and nothing else, as go-kit's `sd/zk` reads it.
///
/// It has the form `http://1.2.3.4:8080` or `1.2.3.4:8080`. Weight, metadata and all the rest of an
/// instance are lost. The nodes that go-kit itself makes have random names, `_c_…`: the id of such
/// an instance is its address, so that it is the same one after a restart.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct GoKit;

impl Layout for GoKit {
    fn encode(&self, announcement: &Announcement) -> Result<Vec<u8>, BoxError> {
        let instance = &announcement.instance;
        let text = match instance.scheme() {
            Some(scheme) => format!("{scheme}://{instance}"),
            None => instance.to_string(),
        };
        Ok(text.into_bytes())
    }

    fn decode(&self, node: &str, data: &[u8]) -> Result<Instance, BoxError> {
        let text = str::from_utf8(data)?.trim();
        let (scheme, address) = match text.split_once("://") {
            Some((scheme, address)) => (Some(scheme), address),
            None => (None, text),
        };
        let address = address.trim_end_matches('/');
        if address.contains(|c: char| c.is_whitespace() || "/{}\"@".contains(c)) {
            return Err("not an address".into());
        }
        let instance: Instance = address.parse()?;
        let instance = match node.starts_with(PROTECTED) {
            true => instance,
            false => instance.with_id(path::unescape(node)),
        };
        Ok(match scheme {
            Some(scheme) => instance.with_scheme(scheme),
            None => instance,
        })
    }
}

/// The prefix of a "protected" node, whose name is random.
const PROTECTED: &str = "_c_";
