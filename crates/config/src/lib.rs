#![doc = include_str!("../README.md")]

mod config;
mod document;
mod latest;
mod options;
mod sink;

pub use config::Config;
pub use latest::Latest;
pub use options::{Format, Options, WhenDeleted};
