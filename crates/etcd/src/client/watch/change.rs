use etcd_client::{Event, KeyValue};

/// What has become of a key.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) key: Vec<u8>,
    pub(crate) mod_revision: i64,
    /// `None`: deleted.
    pub(crate) value: Option<Vec<u8>>,
    /// The lease that the key lives under; 0 if there is none.
    pub(crate) lease: i64,
}

impl From<&KeyValue> for Change {
    fn from(pair: &KeyValue) -> Self {
        Self {
            key: pair.key().to_vec(),
            mod_revision: pair.mod_revision(),
            // A key that exists has a version; reading the type of an event panics when that is
            // unknown.
            value: (pair.version() > 0).then(|| pair.value().to_vec()),
            lease: pair.lease(),
        }
    }
}

impl Change {
    pub(super) fn of_events(events: &[Event]) -> Vec<Self> {
        events.iter().filter_map(|event| event.kv().map(Self::from)).collect()
    }
}
