use tower_sd_core::{KeyValue, Result};

use super::decode::Decode;
use crate::client::Stat;

/// Makes key and value of nodes.
pub(crate) struct Keys {
    key: String,
    /// Whether its children are followed.
    is_prefix: bool,
}

impl Keys {
    pub(super) fn new(key: &str) -> Self {
        let is_prefix = key.is_empty() || key.ends_with('/');
        Self { key: key.to_owned(), is_prefix }
    }
}

impl Decode for Keys {
    type Item = KeyValue;

    fn decode(&self, path: &str, data: &[u8], stat: Stat) -> Result<KeyValue> {
        let revision = stat.mzxid.unsigned_abs();
        if !self.is_prefix {
            return Ok(KeyValue::new(&*self.key, data, revision));
        }
        let name = path.rsplit_once('/').map_or(path, |(_parent, name)| name);
        // Without data it is the parent of others: a folder, as Consul's end with a slash.
        let slash = if data.is_empty() { "/" } else { "" };
        let key = format!("{}{name}{slash}", self.key);
        Ok(KeyValue::new(key, data, revision).below(&self.key))
    }
}
