use std::sync::Arc;

use tower_sd_core::{Error, ErrorKind, Instance, Result};

use super::decode::Decode;
use crate::{BACKEND, Codec, key::Range};

/// Decodes the values of a service's keys.
pub(crate) struct Instances {
    range: Range,
    codecs: Vec<Arc<dyn Codec>>,
}

impl Instances {
    pub(crate) fn new(range: Range, codecs: Vec<Arc<dyn Codec>>) -> Self {
        Self { range, codecs }
    }
}

impl Decode for Instances {
    type Item = Instance;

    /// The first codec that understands it; the error is the first codec's, which is the one that
    /// writes.
    fn decode(&self, key: &[u8], value: &[u8], _revision: i64) -> Result<Instance> {
        let id = self.range.id_of(key);
        let mut first = None;
        for codec in &self.codecs {
            match codec.decode(&id, value) {
                Ok(instance) => return Ok(instance),
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
        }
        let error = Error::new(ErrorKind::Protocol, BACKEND, "decode").with_instance((*id).into());
        Err(match first {
            Some(cause) => error.with_source(cause),
            None => error,
        })
    }
}
