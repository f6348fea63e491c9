use std::{fmt, sync::Arc};

/// A key of a registry's key-value store, and its value.
///
/// A [`Source`](crate::Source) of watched configuration reads these. `Clone` is two `Arc`s. `Debug`
/// leaves the value out: it may hold a password.
#[derive(Clone, Eq, PartialEq)]
pub struct KeyValue {
    key: Arc<str>,
    /// Where in `key` that begins which is not the followed prefix.
    name: usize,
    value: Arc<[u8]>,
    revision: u64,
}

impl KeyValue {
    /// The value that `key` has had since `revision`.
    pub fn new(key: impl Into<Arc<str>>, value: impl Into<Arc<[u8]>>, revision: u64) -> Self {
        let key = key.into();
        Self { name: key.len(), key, value: value.into(), revision }
    }

    /// Marks the key as one below `prefix`, which is what is followed.
    #[must_use]
    pub fn below(self, prefix: &str) -> Self {
        let name = if self.key.starts_with(prefix) { prefix.len() } else { self.name };
        Self { name, ..self }
    }

    /// The whole key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the rest after the followed prefix; empty for a followed key itself.
    pub fn name(&self) -> &str {
        &self.key[self.name..]
    }

    /// The value.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Grows with every write: Consul's `ModifyIndex`, etcd's `mod_revision`.
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValue")
            .field("key", &self.key)
            .field("bytes", &self.value.len())
            .field("revision", &self.revision)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_below_a_prefix_has_the_rest_as_its_name() {
        let key = KeyValue::new("app/db/host", *b"x", 1);
        assert_eq!(key.name(), "");
        assert_eq!(key.clone().below("app/").name(), "db/host");
        assert_eq!(key.below("other/").name(), "");
    }

    #[test]
    fn debug_does_not_show_the_value() {
        let shown = format!("{:?}", KeyValue::new("password", *b"hunter2", 7));
        assert!(!shown.contains("hunter2") && shown.contains("password"), "{shown}");
    }
}
