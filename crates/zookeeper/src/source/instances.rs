use std::sync::Arc;

use tower_sd_core::{Error, ErrorKind, Instance, Result};

use super::decode::Decode;
use crate::{BACKEND, Layout, client::Stat};

/// Decodes the nodes of a service by these layouts.
pub(crate) struct Instances(pub(super) Vec<Arc<dyn Layout>>);

impl Decode for Instances {
    type Item = Instance;

    /// The first layout that understands it; the error is that of the first one, which writes.
    fn decode(&self, path: &str, data: &[u8], _stat: Stat) -> Result<Instance> {
        let node = path.rsplit_once('/').map_or(path, |(_parent, name)| name);
        let mut first = None;
        for layout in &self.0 {
            match layout.decode(node, data) {
                Ok(instance) => return Ok(instance),
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        let error = Error::new(ErrorKind::Protocol, BACKEND, "decode").with_instance(node.into());
        let error = error.with_message(format!("{path} is no instance"));
        Err(match first {
            Some(cause) => error.with_source(cause),
            None => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Curator;

    #[test]
    fn error_of_a_node_that_is_no_instance_names_its_path() {
        let decoded = Instances(vec![Arc::new(Curator)]);
        let error = decoded.decode("/services/s/x", b"no JSON", Stat::default());
        let error = error.expect_err("no instance").to_string();
        assert!(error.contains("/services/s/x"), "{error}");
    }
}
