#![doc = include_str!("../README.md")]

mod client;
mod config;
mod instancer;
mod mapping;
mod query;
mod url;

pub use client::DnsClient;
pub use config::{DnsConfig, Transport};
pub use instancer::DnsInstancer;
pub use query::{Family, Query};

/// The name of this backend in logs and errors.
const BACKEND: &str = "dns";
