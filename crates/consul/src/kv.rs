//! The key-value store: read, and written by check-and-set.

use tower_sd_core::{Error, ErrorKind, Result};

use crate::{
    BACKEND,
    client::{
        ConsulClient,
        kv::{Key, KeysAnswer},
    },
};

/// Reads and writes keys, with the client's token, TLS and bounds.
///
/// A value has at most 512 KiB (the servers' `limits.kv_max_value_size`); a larger one is refused
/// with `Config`. A key does not begin with a slash, and has no control characters and no part `.`
/// or `..`, which HTTP takes for something else. Sessions and locks are left alone.
///
/// ```no_run
/// # use tower_sd::consul::{Consul, ConsulConfig};
/// # async fn example() -> Result<(), tower_sd::Error> {
/// let kv = Consul::new(ConsulConfig::new("127.0.0.1:8500"))?.kv();
/// kv.create("arithmetic/server", r#"{"level": "info"}"#).await?;
/// if let Some(entry) = kv.get("arithmetic/server").await? {
///     // Not if somebody has written in between.
///     kv.replace("arithmetic/server", r#"{"level": "debug"}"#, entry.modify_index).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ConsulKv(ConsulClient);

/// A key of the store, its value and its place in history.
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub struct KvEntry {
    /// The whole key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// 64 bits for the writer's use.
    pub flags: u64,
    /// When it was created.
    pub create_index: u64,
    /// When it was written last; what [`replace`](ConsulKv::replace) compares.
    pub modify_index: u64,
}

impl ConsulKv {
    pub(crate) fn new(client: &ConsulClient) -> Self {
        Self(client.clone())
    }

    /// Reads a key from the leader; `None` when there is none.
    ///
    /// # Errors
    ///
    /// It could not be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn get(&self, key: &str) -> Result<Option<KvEntry>> {
        let mut found = entries(self.0.keys("get", key, Vec::new(), None).await?)?;
        Ok(found.pop())
    }

    /// Reads all keys that begin with `prefix`, sorted.
    ///
    /// What a token may not see is left out.
    ///
    /// # Errors
    ///
    /// They could not be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn list(&self, prefix: &str) -> Result<Vec<KvEntry>> {
        let query = vec![("recurse", String::new())];
        entries(self.0.keys("get", prefix, query, None).await?)
    }

    /// Writes a key, whatever it had.
    ///
    /// # Errors
    ///
    /// It was not written (`Denied`, `Config` for a value that is too large), or that is unknown
    /// (`Timeout`, `Unavailable`).
    ///
    /// # Cancel safety
    ///
    /// Dropped early, it may be written or not.
    pub async fn put(&self, key: &str, value: impl Into<Vec<u8>>) -> Result<()> {
        self.write("put", key, None, Some(value.into())).await
    }

    /// Writes a key that does not exist.
    ///
    /// # Errors
    ///
    /// `Conflict`: it does. And as [`put`](Self::put).
    ///
    /// # Cancel safety
    ///
    /// As [`put`](Self::put).
    pub async fn create(&self, key: &str, value: impl Into<Vec<u8>>) -> Result<()> {
        self.write("create", key, Some(0), Some(value.into())).await
    }

    /// Writes a key that has not been written since `modify_index`.
    ///
    /// # Errors
    ///
    /// `Conflict`: it has been written, or it is gone; read it again. And as [`put`](Self::put).
    ///
    /// # Cancel safety
    ///
    /// As [`put`](Self::put).
    pub async fn replace(
        &self,
        key: &str,
        value: impl Into<Vec<u8>>,
        modify_index: u64,
    ) -> Result<()> {
        self.write("replace", key, Some(modify_index), Some(value.into())).await
    }

    /// Deletes a key; that there is none is success.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    ///
    /// # Cancel safety
    ///
    /// Dropped early, it may be deleted or not.
    pub async fn delete(&self, key: &str) -> Result<()> {
        self.write("delete", key, None, None).await
    }

    /// Deletes a key that has not been written since `modify_index`.
    ///
    /// # Errors
    ///
    /// As [`replace`](Self::replace).
    ///
    /// # Cancel safety
    ///
    /// As [`delete`](Self::delete).
    pub async fn delete_unchanged(&self, key: &str, modify_index: u64) -> Result<()> {
        self.write("delete", key, Some(modify_index), None).await
    }

    async fn write(
        &self,
        operation: &'static str,
        key: &str,
        check_and_set: Option<u64>,
        value: Option<Vec<u8>>,
    ) -> Result<()> {
        let query = check_and_set.map(|index| ("cas", index.to_string()));
        let query = query.into_iter().collect();
        if self.0.write_key(operation, key, query, value).await? {
            return Ok(());
        }
        let message = match check_and_set {
            Some(0) => format!("key {key} exists"),
            _ => format!("key {key} was changed meanwhile; read it again"),
        };
        Err(Error::new(ErrorKind::Conflict, BACKEND, operation).with_message(message))
    }
}

/// Without the value, which may be a password.
impl std::fmt::Debug for KvEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvEntry")
            .field("key", &self.key)
            .field("bytes", &self.value.len())
            .field("modify_index", &self.modify_index)
            .finish_non_exhaustive()
    }
}

fn entries(answer: KeysAnswer) -> Result<Vec<KvEntry>> {
    let entry = |key: Key| {
        let value = key.value()?;
        let Key { key, flags, create_index, modify_index, .. } = key;
        Ok(KvEntry { key, value, flags, create_index, modify_index })
    };
    answer.keys.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests;
