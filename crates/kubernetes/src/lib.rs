#![doc = include_str!("../README.md")]

mod client;
mod config;
mod error;
mod kubernetes;
mod mapping;
mod query;
mod source;
mod url;

pub use config::{ExecPlugin, KubernetesConfig};
pub use kubernetes::Kubernetes;
pub use query::{Family, Query};

/// The name under which logs and errors show this backend.
const BACKEND: &str = "kubernetes";
