#![doc = include_str!("../README.md")]

mod check;
mod client;
mod config;
mod consul;
mod error;
mod kv;
mod mapping;
mod query;
mod registration;
mod source;
mod url;

pub use check::Check;
pub use config::ConsulConfig;
pub use consul::Consul;
pub use kv::{ConsulKv, KvEntry};
pub use query::Query;
pub use registration::RegistrationOptions;

/// The name under which logs and errors show this backend.
const BACKEND: &str = "consul";
