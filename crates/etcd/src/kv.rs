use std::fmt;

use tower_sd_core::{
    Error, ErrorKind, KeyValue, ReadRequest, ReadResult, Result, Source, async_trait,
};

use crate::{
    BACKEND, EtcdClient,
    key::Range,
    source::{Decode, EtcdSource},
};

/// Watches a key, or all keys below a prefix: what `tower_sd_config::Config` follows in etcd.
///
/// The keys are etcd's own, as `etcdctl` shows them; the client's prefix for services does not
/// apply. A request has at most 1.5 MiB (the servers' `--max-request-bytes`), and with it a value.
/// Everything that one client follows shares a connection and a watch stream.
pub struct EtcdKvSource {
    source: EtcdSource<Keys>,
    what: String,
}

impl EtcdKvSource {
    /// Watches one key.
    #[must_use]
    pub fn key(client: &EtcdClient, key: impl Into<String>) -> Self {
        let what = key.into();
        let range = match what.is_empty() {
            false => Ok(Range::one(what.clone().into_bytes())),
            true => Err(Error::new(ErrorKind::Config, BACKEND, "follow")
                .with_message("a key is not empty; a prefix may be")),
        };
        let source = EtcdSource::new(client, range, Ok(Keys { prefix: None }));
        Self { source, what }
    }

    /// Watches all keys below `prefix`, a folder: `app` has `app/port`, and not `apple`.
    #[must_use]
    pub fn prefix(client: &EtcdClient, prefix: impl Into<String>) -> Self {
        let mut what = prefix.into();
        if !what.ends_with('/') && !what.is_empty() {
            what.push('/');
        }
        let range = Range::below(what.as_bytes());
        let keys = Keys { prefix: Some(what.clone()) };
        Self { source: EtcdSource::new(client, Ok(range), Ok(keys)), what }
    }
}

#[async_trait]
impl Source for EtcdKvSource {
    type Item = KeyValue;

    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult<KeyValue>> {
        self.source.read(request).await
    }
}

impl fmt::Debug for EtcdKvSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdKvSource").field("what", &self.what).finish_non_exhaustive()
    }
}

struct Keys {
    /// None: one key is watched.
    prefix: Option<String>,
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
