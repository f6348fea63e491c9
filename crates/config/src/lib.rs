#![doc = include_str!("../README.md")]

mod config;
mod document;
mod keeper;
mod latest;
mod options;

pub use config::Config;
pub use latest::Latest;
pub use options::{Format, Options, WhenDeleted};
