//! How an instance is written into a node, and read from one.

mod curator;
mod go_kit;
mod server_set;

use std::fmt::Debug;

use serde_json::Value;
use tower_sd_core::{Announcement, BoxError, Instance};

pub use self::{curator::Curator, go_kit::GoKit, server_set::ServerSet};
use crate::path;

/// The names and the data of a service's nodes.
///
/// # Contract
///
/// - `decode(node(id), encode(announcement))` must be the announced instance, as far as the format
///   has places for it.
/// - `encode` should write [`Announcement::incarnation`] where the format has a place for it.
/// - `decode` must never panic: the bytes are untrusted.
pub trait Layout: Debug + Send + Sync + 'static {
    /// Returns the name of an instance's node, which no other instance of the service has.
    ///
    /// Its id by default, percent-encoded where no node can be named so.
    fn node(&self, id: &str) -> String {
        path::escape(id)
    }

    /// Writes an announced instance.
    ///
    /// # Errors
    ///
    /// The format has no way to write it.
    fn encode(&self, announcement: &Announcement) -> Result<Vec<u8>, BoxError>;

    /// Reads an instance; `node` is the name of its node.
    ///
    /// # Errors
    ///
    /// The data is not of this format.
    fn decode(&self, node: &str, data: &[u8]) -> Result<Instance, BoxError>;
}

/// A text as it is, and any other value as JSON.
fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
