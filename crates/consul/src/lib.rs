#![doc = include_str!("../README.md")]

mod check;
mod client;
mod config;
mod instancer;
mod kv;
mod kv_source;
mod mapping;
mod query;
mod registrar;

pub use check::Check;
pub use client::ConsulClient;
pub use config::ConsulConfig;
pub use instancer::ConsulInstancer;
pub use kv::{ConsulKv, KvEntry};
pub use kv_source::ConsulKvSource;
pub use query::Query;
pub use registrar::ConsulRegistrar;

/// The name under which logs and errors show this backend.
const BACKEND: &str = "consul";
