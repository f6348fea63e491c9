//! Sending an HTTP request a second time, and keeping its body for that.

mod body;
mod policy;

pub use body::{NotRepeatable, RepeatableBody, ReplayBody};
pub(crate) use policy::outcome_of;
#[cfg(feature = "reqwest")]
pub(crate) use policy::retry_after;
pub use policy::{HttpProtocol, Idempotent};
