#![doc = include_str!("../README.md")]

mod client;
mod codec;
mod config;
mod error;
mod etcd;
mod key;
mod registration;
mod source;
mod url;

pub use codec::{Codec, KitexJson, KratosJson, NamingJson, RawAddress};
pub use config::{EtcdConfig, User};
pub use etcd::Etcd;

/// The name of this backend in errors and logs.
pub(crate) const BACKEND: &str = "etcd";
