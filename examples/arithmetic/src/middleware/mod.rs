//! What servers and the gateway do with every request: tower layers, for any service over HTTP.

mod log;
mod metrics;

pub(crate) use self::{log::LogLayer, metrics::Metrics};
