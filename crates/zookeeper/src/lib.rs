#![doc = include_str!("../README.md")]

mod client;
mod config;
mod error;
mod layout;
mod path;
mod registration;
mod source;
mod url;
mod zookeeper;

pub use config::{Acl, User, ZooKeeperConfig};
pub use layout::{Curator, GoKit, Layout, ServerSet};
pub use zookeeper::ZooKeeper;

/// The name of this backend in errors and logs.
pub(crate) const BACKEND: &str = "zookeeper";
