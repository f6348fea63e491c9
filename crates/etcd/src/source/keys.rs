use tower_sd_core::{Error, ErrorKind, KeyValue, Result};

use super::decode::Decode;
use crate::BACKEND;

/// Decodes keys.
pub(super) struct Keys {
    /// None: one key is watched.
    pub(super) prefix: Option<String>,
}

impl Decode for Keys {
    type Item = KeyValue;

    fn decode(&self, key: &[u8], value: &[u8], revision: i64) -> Result<KeyValue> {
        let key = str::from_utf8(key).map_err(|cause| {
            let message = format!("key {} is not UTF-8", key.escape_ascii());
            Error::new(ErrorKind::Protocol, BACKEND, "follow")
                .with_message(message)
                .with_source(cause)
        })?;
        let entry = KeyValue::new(key, value, revision.unsigned_abs());
        Ok(match &self.prefix {
            Some(prefix) => entry.below(prefix),
            None => entry,
        })
    }
}
