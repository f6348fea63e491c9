//! Sending an HTTP request a second time: which ones, and how their bodies are kept.

mod body;
mod policy;

pub use body::{NotRepeatable, RepeatableBody, ReplayBody};
#[cfg(feature = "reqwest")]
pub(crate) use policy::is_unavailable;
pub use policy::{HttpReplay, Idempotent};
