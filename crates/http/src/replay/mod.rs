//! Sending an HTTP request a second time, and keeping its body for that.

mod body;

pub use body::{NotRepeatable, RepeatableBody, ReplayBody};
