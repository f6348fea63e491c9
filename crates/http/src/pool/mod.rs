//! The connections of one endpoint: those that are idle, and the way to get one.

mod checkout;
mod connect;
mod connection;
mod dial_on_demand;
mod dial_task;
mod dial_window;
mod expiry;
mod home;
mod http1;
mod http2;
mod limit;
mod queue;
mod settings;
mod target;
mod upload;

pub(crate) use checkout::Checkout;
pub(crate) use connection::{Connection, Unused};
pub(crate) use home::Pool;
pub use limit::ConnectionLimit;
pub(crate) use settings::{Settings, bounded};
pub(crate) use target::Target;
pub(crate) use upload::{Outgoing, Payload, Upload, announced, framing};
