//! The tower layers of servers and of the gateway, for any service over HTTP.

mod log;
mod metrics;

pub(crate) use self::{log::LogLayer, metrics::Metrics};
