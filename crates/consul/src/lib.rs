#![doc = include_str!("../README.md")]

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

pub use config::ConsulConfig;
pub use consul::Consul;
pub use kv::{ConsulKv, KvEntry};
pub use query::Query;
pub use registration::{Check, RegistrationOptions};

/// The name under which logs and errors show this backend.
const BACKEND: &str = "consul";
