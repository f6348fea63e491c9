#![doc = include_str!("../README.md")]

mod client;
mod config;
mod dns;
mod error;
mod mapping;
mod query;
mod source;
mod url;

pub use config::{DnsConfig, Transport};
pub use dns::Dns;
pub use query::{Family, Query};

/// The name of this backend in logs and errors.
const BACKEND: &str = "dns";
