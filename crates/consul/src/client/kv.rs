//! The key-value part of Consul's HTTP interface.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::Method;
use serde::Deserialize;
use tower_sd_core::{Error, ErrorKind, Result};

use super::{
    ConsulClient,
    http::{Answer, Call},
    reply::Meta,
};
use crate::error;

/// One reading of `GET /v1/kv/:key`.
#[derive(Debug)]
pub(crate) struct KeysAnswer {
    pub(crate) meta: Meta,
    /// Empty: there is no such key, which Consul reports with 404.
    pub(crate) keys: Vec<Key>,
    /// Its length in bytes.
    pub(crate) size: usize,
}

/// A key as Consul writes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Key {
    pub(crate) key: String,
    /// In base 64; `null` when empty.
    value: Option<String>,
    #[serde(default)]
    pub(crate) flags: u64,
    #[serde(default)]
    pub(crate) create_index: u64,
    #[serde(default)]
    pub(crate) modify_index: u64,
}

impl ConsulClient {
    /// Reads a key, or with `recurse` in the query those that begin with it; blocks when `query`
    /// has an index.
    pub(crate) async fn keys(
        &self,
        operation: &'static str,
        key: &str,
        query: Vec<(&'static str, String)>,
        wait: Option<Duration>,
    ) -> Result<KeysAnswer> {
        let path = path(key);
        let call = Call { query, ..Call::get(operation, &path) };
        let answer = self.0.wire.send(wait.into_iter().fold(call, Call::blocking)).await?;
        let meta = Meta::of(&answer.headers);
        // Without an index it is not the store that answered: a proxy, or a path that the agent
        // does not have.
        if answer.status == 404 && meta.index.is_some() {
            return Ok(KeysAnswer { meta, keys: Vec::new(), size: 0 });
        }
        succeed(&answer)?;
        Ok(KeysAnswer { meta, keys: answer.list("keys")?, size: answer.body.len() })
    }

    /// Writes a key, or deletes it when there is no `value`. False: the condition in `query` does
    /// not hold.
    pub(crate) async fn write_key(
        &self,
        operation: &'static str,
        key: &str,
        query: Vec<(&'static str, String)>,
        value: Option<Vec<u8>>,
    ) -> Result<bool> {
        let path = path(key);
        let method = if value.is_some() { Method::PUT } else { Method::DELETE };
        let call = Call { query, method, body: value, ..Call::get(operation, &path) };
        let answer = self.0.wire.send(call).await?;
        succeed(&answer)?;
        match answer.body.trim_ascii() {
            b"true" => Ok(true),
            b"false" => Ok(false),
            _ => Err(error::garbled(operation, "neither true nor false")),
        }
    }
}

impl Key {
    pub(crate) fn value(&self) -> Result<Vec<u8>> {
        let text = self.value.as_deref().unwrap_or_default();
        BASE64_STANDARD.decode(text).map_err(|cause| {
            let what = format!("the value of key {} is not in base 64", self.key);
            error::garbled("follow", what).with_source(cause)
        })
    }
}

/// `kv`, and the key's parts.
fn path(key: &str) -> Vec<&str> {
    std::iter::once("kv").chain(key.split('/')).collect()
}

fn succeed(answer: &Answer) -> Result<()> {
    let error = match super::succeed(answer) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    Err(match error.kind() {
        ErrorKind::Denied => denied(&error, answer),
        _ => error,
    })
}

/// The table's own hint is about services.
fn denied(error: &Error, answer: &Answer) -> Error {
    let detail = answer.detail();
    let message = format!(
        "{} {}: give a token that may do this (key:read to read, key:write to write, of the key or its prefix)",
        answer.status,
        detail.trim()
    );
    error.clone().with_message(message)
}
