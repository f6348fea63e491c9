#![doc = include_str!("../README.md")]

mod client;
mod config;
mod error;
mod eureka;
mod mapping;
mod query;
mod registration;
mod source;
mod url;

pub use config::{EurekaConfig, EurekaServer};
pub use eureka::Eureka;
pub use query::{Lookup, Query};
pub use registration::RegistrationOptions;

/// The name under which logs and errors show this backend.
const BACKEND: &str = "eureka";
