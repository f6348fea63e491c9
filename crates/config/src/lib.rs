#![doc = include_str!("../README.md")]

mod config;
mod document;
mod latest;
mod options;
mod sink;

pub use config::WatchedConfig;
pub use latest::ConfigSnapshot;
pub use options::{Format, OnDelete, WatchOptions};

/// The name of this crate in logs and errors.
const BACKEND: &str = "config";
